"""What a loader hands over, and how a victim's preprocessing is put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import UsageError
from .victim import Preprocessing

FIELDS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Loaded:
    """A classifier with its weights in, ready to be wrapped; `source` says in words where the weights came from."""

    module: nn.Module
    name: str
    weights: str
    preprocessing: Preprocessing
    licence: str | None = None
    source: str | None = None


@contextmanager
def seeded_init() -> Iterator[None]:
    """Modules built inside draw their first weights from seed 0; the caller's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def adjusted(base: Preprocessing, changes: Mapping[str, Any], origin: str) -> Preprocessing:
    """`base` with some fields replaced; `origin` names who asked for it.

    `mean` and `std` take one number or three; `input_size` takes a side, (H,W) or (3,H,W).
    Raises UsageError for fields or values that make no sense.
    """
    if not changes:
        return base
    try:
        values = {name: _field(name, value) for name, value in changes.items()}
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"preprocessing from {origin} is not usable: {error}; {_EXPECTED}") from error
    return dataclasses.replace(base, **values, origin=f"{base.origin}, {'/'.join(values)} from {origin}")


_EXPECTED = "expected e.g. mean=0.5, std=0.229/0.224/0.225, input_size=224, crop_pct=0.875, interpolation=bilinear"


def _field(name: str, value: Any) -> Any:
    if name in ("mean", "std"):
        numbers = tuple(float(v) for v in value) if isinstance(value, (list, tuple)) else (float(value),) * 3
        if len(numbers) != 3 or not all(-10 < v < 10 for v in numbers) or (name == "std" and min(numbers) <= 0):
            raise ValueError(f"{name}={value!r}")
        return numbers
    if name == "input_size":
        sides = [int(v) for v in value][-2:] if isinstance(value, (list, tuple)) else [int(value)] * 2
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"{name}={value!r}")
        return (3, *sides)
    if name == "crop_pct":
        if not 0 < float(value) <= 1:
            raise ValueError(f"{name}={value!r}")
        return float(value)
    allowed = {"interpolation": INTERPOLATIONS, "crop_mode": CROP_MODES}[name]
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is none of {', '.join(allowed)}")
    return value
