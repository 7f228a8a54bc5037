"""Honest evaluation: which images, which predictions change, and how sure that is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fooling import evaluate
    from .intervals import Rate
    from .results import DEFINITIONS, Evaluation, Row
    from .resume import Session

__all__ = ["DEFINITIONS", "Evaluation", "Rate", "Row", "Session", "evaluate"]

_HOME = {
    "DEFINITIONS": "results",
    "Evaluation": "results",
    "Rate": "intervals",
    "Row": "results",
    "Session": "resume",
    "evaluate": "fooling",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that a gate reads its numbers without paying two seconds for torch.
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
