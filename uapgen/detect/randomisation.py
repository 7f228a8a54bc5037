"""Exact tests by redrawing what chance would have drawn, from inner products alone; Holm's correction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AT_ONCE = 10_000  # draws


def sign_flip_p(gram: Tensor, rounds: int, generator: torch.Generator) -> float:
    """p-value of the energy of a sum of N fields against `rounds` sums with random signs; `gram` (N,N) is of them.

    Exact where the fields are independent and each is as likely as its negative.
    """
    n = len(gram)
    return _p_value(gram, torch.ones(n), rounds, lambda k: torch.randint(0, 2, (k, n), generator=generator) * 2 - 1)


def permutation_p(gram: Tensor, n: int, rounds: int, generator: torch.Generator) -> float:
    """p-value of the inner products among the first n fields, summed, against random choices of n of all.

    Exact where all fields are exchangeable. Large only where the first n agree more than others do, so that what is
    common to all of them counts for nothing.
    """
    chosen = torch.arange(len(gram)) < n

    def draw(k: int) -> Tensor:
        return chosen[torch.rand(k, len(gram), generator=generator).argsort(1)]

    return _p_value(gram, chosen, rounds, draw)


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p-values (Holm, 1979): those at most alpha are rejected, and the chance of any false one is alpha."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _p_value(gram: Tensor, observed: Tensor, rounds: int, draw: Callable[[int], Tensor]) -> float:
    pairs = gram - torch.diag(gram.diagonal())  # a field says nothing about itself

    def energy(weights: Tensor) -> Tensor:
        return ((weights @ pairs) * weights).sum(1)

    held = energy(observed[None].double())
    slack = 1e-9 * gram.abs().sum()  # ties are ties in spite of rounding
    beaten = sum(
        int((energy(draw(min(AT_ONCE, rounds - start)).double()) >= held - slack).sum())
        for start in range(0, rounds, AT_ONCE)
    )
    return (1 + beaten) / (1 + rounds)
