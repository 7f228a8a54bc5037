"""A universal perturbation: its file and card, its ball, other people's formats, and pictures of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .uap import Perturbation

__all__ = ["Perturbation"]


def __getattr__(name: str) -> Any:
    # Lazy, so that a gate reads cards without paying two seconds for torch.
    if name == "Perturbation":
        from .uap import Perturbation

        return Perturbation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
