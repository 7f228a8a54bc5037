"""Kernel inception distance: the unbiased squared MMD with the cubic polynomial kernel (Bińkowski et al., 2018).

Unlike the Fréchet distance its expectation does not depend on the number of images, so it suits rare classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import UsageError


@dataclass(frozen=True)
class Kid:
    """`mean` and `std` of the blocks' MMD^2 (std is not the error of the mean: blocks overlap), and what was drawn."""

    mean: float
    std: float
    blocks: int
    block_size: int


def polynomial_kernel(x: Tensor, y: Tensor, degree: int = 3, coef0: float = 1.0) -> Tensor:
    """(x.y / F + coef0)^degree, (N,M), of features (N,F) and (M,F)."""
    return (x @ y.T / x.shape[1] + coef0) ** degree


def mmd2(x: Tensor, y: Tensor) -> float:
    """Unbiased squared MMD of features (N,F), (M,F), all pairs, in float64; may be slightly negative.

    mean_{i!=j} k(x_i,x_j) + mean_{i!=j} k(y_i,y_j) - 2 mean_{i,j} k(x_i,y_j). Gretton et al., 2012, Eq. (3).
    """
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise UsageError(f"the unbiased MMD needs at least 2 images on each side, not {n} and {m}")
    own_x, own_y = polynomial_kernel(x, x), polynomial_kernel(y, y)
    within = (own_x.sum() - own_x.trace()) / (n * (n - 1)) + (own_y.sum() - own_y.trace()) / (m * (m - 1))
    return float(within - 2 * polynomial_kernel(x, y).mean())


def kid(x: Tensor, y: Tensor, generator: torch.Generator, *, blocks: int = 100, block_size: int = 1000) -> Kid:
    """Mean and standard deviation of `mmd2` over random blocks, each drawn from x (N,F), y (M,F) without replacement.

    block_size falls to the smaller set where there are fewer images; the result says what was used. Published: 100
    blocks of 1000. generator: a CPU generator.
    """
    if blocks < 1:
        raise UsageError(f"{blocks} blocks; expected at least 1")
    size = min(block_size, len(x), len(y))
    values = torch.tensor(
        [
            mmd2(x[_pick(len(x), size, generator).to(x.device)], y[_pick(len(y), size, generator).to(y.device)])
            for _ in range(blocks)
        ],
        dtype=torch.float64,
    )
    std = float(values.std()) if blocks > 1 else math.nan
    return Kid(float(values.mean()), std, blocks, size)


def _pick(n: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:size]
