"""Sums and means over processes: of tensors, of what a batch's parts have in common, of an optimiser's gradients.

One process: nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import all_sum, world


def summed(parts: Iterable[Tensor]) -> list[Tensor]:
    """Each tensor summed over processes, in one exchange; no gradient passes."""
    held = list(parts)
    if world() == 1 or not held:
        return held
    flat = all_sum(torch.cat([part.flatten() for part in held]))
    return [a.view_as(b) for a, b in zip(flat.split([part.numel() for part in held]), held, strict=True)]


def sum_gradients(optimizer: Optimizer) -> None:
    """Puts into the gradients of the optimiser's parameters their sum over processes."""
    _reduce(optimizer, 1)


def average_gradients(optimizer: Optimizer) -> None:
    """Puts into the gradients of the optimiser's parameters their mean over processes."""
    _reduce(optimizer, world())


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean over equal parts, of which each process has one; gradients reach all of them."""
    return x if world() == 1 else _Sum.apply(x) / world()


def moments_over_processes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Biased variance and mean (C,) of x (B,C,H,W) over the equal batches of all processes."""
    moments = mean_over_processes(torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))
    return (moments[1] - moments[0].square()).clamp_min(0), moments[0]


def _reduce(optimizer: Optimizer, divisor: int) -> None:
    if world() == 1:
        return
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for gradient, total in zip(gradients, summed(gradients), strict=True):
        gradient.copy_(total / divisor)


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the gradients, since every process's loss reads it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_sum(x.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_sum(gradients[0].clone())
