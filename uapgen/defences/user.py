"""A defence of the user's own: `module:function`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import UapgenError, UsageError
from ..runtime import import_named

TOLERANCE = 1e-4  # of the range [0,1], for arithmetic that rounds


def load_defence(spec: str) -> tuple[Callable[[Tensor, Sequence[torch.Generator]], Tensor], bool]:
    """The function that `package.module:name` names, checked at every call, and whether it takes generators.

    It maps images (B,3,H,W) float in [0,1] to images of the same shape and range. One with a parameter `generators`
    gets a seeded torch.Generator for each image, to draw from. Raises UsageError for a name that is no function.
    """
    function = import_named(spec, "defence")
    if not callable(function):
        raise UsageError(f"defence {spec!r} is a {type(function).__name__}; expected a function of images (B,3,H,W)")
    try:
        draws = "generators" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # functions written in C may have no signature
        draws = False

    def checked(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        try:
            y = function(x, generators=generators) if draws else function(x)
        except UapgenError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise UapgenError(f"defence {spec!r} raised {type(error).__name__}: {error}") from error
        _check(y, x, spec)
        return y.clamp(0, 1)

    return checked, draws


def _check(y: object, x: Tensor, spec: str) -> None:
    if not isinstance(y, Tensor) or y.shape != x.shape or not y.is_floating_point():
        found = f"{tuple(y.shape)} {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise UapgenError(f"defence {spec!r} returned {found}; expected images {tuple(x.shape)} float in [0,1]")
    low, high = float(y.detach().min()), float(y.detach().max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also refuses nan
        raise UapgenError(f"defence {spec!r} returned values from {low:.4g} to {high:.4g}; expected [0,1]")
