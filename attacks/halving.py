"""The step of GD-UAP and its descendants: Adam, and half of the pattern when it has come to rest at the bound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .steps import AdamStep, project, saturation

REST, FULL = 1e-5, 0.5  # the change of saturation that counts as none, and the saturation from which it matters


class HalvingStep:
    """Adam on delta (L-inf) that goes on from delta / 2 once more than half of the pixels sit at the bound and that
    share has not changed by 1e-5 in a step.

    The public code halves at the end of a step; here it happens at the start of the next one, so that no pattern of
    half the size is ever looked at or returned. Take the gradient at `start(delta)`. Adam's moments are kept.
    `lr` and `eps` in pixel units; `factor()` is asked at each rest for what to go on from, 1 for the whole of delta.
    """

    def __init__(self, lr: float, eps: float, factor: Callable[[], float] = lambda: 0.5) -> None:
        self.adam = AdamStep(lr, betas=(0.9, 0.999))
        self.eps, self.factor = eps, factor
        self.halvings = 0
        self._saturation, self._next = 0.0, 1.0

    def start(self, delta: Tensor) -> Tensor:
        """Where the next step starts from: `delta`, or a part of it."""
        return delta * self._next

    def __call__(self, delta: Tensor, gradient: Tensor) -> Tensor:
        moved = project(self.adam(self.start(delta), gradient), self.eps)
        share = saturation(moved, self.eps)
        at_rest = share > FULL and abs(share - self._saturation) < REST
        self._saturation, self._next = share, self.factor() if at_rest else 1.0
        self.halvings += self._next < 1
        return moved

    def tensors(self) -> dict[str, Tensor]:
        own = torch.tensor([self._saturation, self._next, self.halvings], dtype=torch.float64)
        return {**self.adam.tensors(), "halving": own}

    def load(self, tensors: dict[str, Tensor]) -> None:
        tensors = dict(tensors)
        self._saturation, self._next, halvings = tensors.pop("halving").tolist()
        self.halvings = int(halvings)
        self.adam.load(tensors)
