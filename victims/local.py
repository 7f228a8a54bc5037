"""The user's own classifier: `module:function`, imported from the working directory or the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UapgenError, UsageError
from ..userfunction import import_named
from .config import Loaded
from .victim import Preprocessing, Victim
from .weights import load_into


def load_callable(spec: str, *, weights: Path | None) -> Loaded | Victim:
    """`package.module:name`, where `name` is a module, or a callable without arguments that returns one.

    Accepted results: nn.Module, (nn.Module, Preprocessing), or a Victim, which keeps its own device and
    precision. `weights` are loaded into a module.
    Raises UsageError when the name does not exist, UapgenError when it fails or returns something else.
    """
    result = _call(import_named(spec, "victim"), spec)
    if isinstance(result, Victim):
        if weights:
            raise UsageError(f"{spec} returns a finished Victim; load {weights} inside it")
        return result
    module, preprocessing = result if isinstance(result, tuple) and len(result) == 2 else (result, Preprocessing())
    if not isinstance(module, nn.Module) or not isinstance(preprocessing, Preprocessing):
        expected = "expected nn.Module, (nn.Module, uapgen.victims.Preprocessing) or Victim"
        raise UapgenError(f"{spec} returned {type(result).__name__}; {expected}")
    if weights:
        load_into(module, weights, model_name=spec)
        return Loaded(module, spec, "file", preprocessing, source=weights.name)
    return Loaded(module, spec, "user", preprocessing)


def _call(found: Any, spec: str) -> Any:
    if isinstance(found, (nn.Module, Victim)) or not callable(found):
        return found
    try:
        return found()
    except UapgenError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UapgenError(f"victim {spec!r} raised {type(error).__name__}: {error}") from error
