"""A batch shared out over processes by rows; sums and means over processes. One process: nothing happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from . import all_sum, rank, world


def rows(n: int) -> slice:
    """This process's rows of a batch of n; shares differ by one row at most, and may be empty."""
    return slice(rank() * n // world(), (rank() + 1) * n // world())


def share(x: Tensor) -> Tensor:
    """This process's rows of x (B,...); the first row where it has none, because a network wants an image."""
    if world() == 1:
        return x
    mine = x[rows(len(x))]
    return mine if len(mine) else x[:1]


def own(mine: Tensor, n: int) -> Tensor:
    """What came of `share`, without the row that stands in for none; n is the size of the whole batch."""
    held = rows(n)
    return mine[: held.stop - held.start]


def whole(mine: Tensor, n: int) -> Tensor:
    """The rows (n,...) of all processes, from what came of `share`; the gradient stays with each one's rows."""
    return mine if world() == 1 else _Whole.apply(mine, n)


def total(values: Sequence[Tensor]) -> list[Tensor]:
    """Scalars that are sums over rows, each summed over processes; the gradient stays with each one's rows."""
    return list(values) if world() == 1 else list(_Total.apply(torch.stack(list(values))).unbind())


def mean(values: Tensor) -> Tensor:
    """The mean of the values of all processes, which may have different numbers of them, or none."""
    if world() == 1:
        return values.mean()
    return total([values.sum()])[0] / all_sum(torch.tensor(values.numel(), device=values.device))


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, n: int) -> Tensor:
        ctx.shape, ctx.rows = mine.shape, rows(n)
        counts = [(i + 1) * n // world() - i * n // world() for i in range(world())]
        padded = mine.new_zeros(max(counts), *mine.shape[1:])  # nccl gathers equal parts
        padded[: counts[rank()]] = mine[: counts[rank()]]
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].new_zeros(ctx.shape)
        mine = gradients[0][ctx.rows]
        gradient[: len(mine)] = mine
        return gradient, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return all_sum(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


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
