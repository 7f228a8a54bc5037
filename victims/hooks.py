"""What passes through a victim: its cost in images, outputs and inputs of layers, and the features of a classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Cost:
    """What has been spent on a victim, in images: with a backward pass, and forward only.

    Under torchrun a shared batch counts as a whole, on every process.
    """

    image_gradients: int = 0
    image_forwards: int = 0
    passes: Counter[int] = field(default_factory=Counter)  # backward passes by the size of their batch
    layers: dict[str, None] = field(default_factory=dict)  # whose outputs were read, in the order of the first time

    def as_dict(self) -> dict[str, int]:
        return {"image_gradients": self.image_gradients, "image_forwards": self.image_forwards}

    def back_propagated(self, batch: int, passes: int = 1) -> None:
        """Counts `passes` backward passes of a batch: for what no hook sees, such as products with a Jacobian."""
        self.image_gradients += batch * passes
        self.passes[batch] += passes

    def read(self, layers: Iterable[str]) -> None:
        """Notes that outputs of `layers` were read."""
        self.layers |= dict.fromkeys(layers)

    def watched(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`forward(x)`, logits (B,K) of images x (B,3,H,W), counted.

        The pass is forward only until a gradient comes back through it: to the images, or, where these want none, from
        the logits towards weights that do. Each further backward pass through it counts its images again.
        """
        batch, first = len(x), True

        def arrived(gradient: Tensor) -> None:
            nonlocal first
            self.image_forwards -= batch if first else 0
            first = False
            self.back_propagated(batch)

        to_images = torch.is_grad_enabled() and x.requires_grad
        if to_images:
            x = x.view_as(x)  # a tensor of this pass's own: the caller's may go through the victim twice
            x.register_hook(arrived)
        logits = forward(x)
        self.image_forwards += batch
        if logits.requires_grad and not to_images:
            logits.register_hook(arrived)
        return logits


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
