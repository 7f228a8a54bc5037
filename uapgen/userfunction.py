"""The user's own code by name: `module:function`, imported from the working directory or the environment."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import UapgenError, UsageError, did_you_mean


def import_named(spec: str, role: str) -> Any:
    """What `package.module:name` names; `role` says in messages what it was given as, such as "victim".

    Raises UsageError when there is no such module or name, UapgenError when importing it fails.
    """
    name, _, attribute = spec.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"{role} {spec!r}: no module {name!r}; run where {name}.py lies, or install it") from error
        raise UapgenError(f"{role} {spec!r}: importing {name} failed: {error}") from error
    except Exception as error:  # the user's code may raise anything
        raise UapgenError(f"{role} {spec!r}: importing {name} raised {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise UsageError(f"{role} {spec!r}: {name} has no {attribute!r}{did_you_mean(attribute, dir(module))}")
    return getattr(module, attribute)
