"""A batch that every process holds and none computes alone: each takes its rows, and the loss is that of all of them.

Every process draws the same images, `share` takes this process's rows through the victim, and `whole` and `total` bring
what came out together, so that each process has the loss of the whole batch, whatever couples its images. Nothing is
sent backwards: on each process the gradient of that loss is the part that went through its own rows, and the sum of the
parts (`sums.summed`) is the gradient. One process: nothing happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

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
