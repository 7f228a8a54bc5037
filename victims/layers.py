"""What a victim's layers see and say: hooks that keep what passes, and what a classifier layer reads as features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def keep_output(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    """A forward hook that puts the module's output, or its first one, into `seen[name]`."""

    def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output

    return hook


def keep_input(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    """A forward pre-hook that puts the module's first input into `seen[name]`."""

    def hook(module: nn.Module, inputs: tuple) -> None:
        seen[name] = inputs[0]

    return hook


def pooled(head: Tensor) -> Tensor:
    """What a classifier layer reads, (B,F) or (B,F,h,w), as features (B,F) float32."""
    return head.float().mean((2, 3)) if head.ndim == 4 else head.float().flatten(1)
