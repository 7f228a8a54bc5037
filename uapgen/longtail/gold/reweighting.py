"""Example re-weighting: generated images count in the discriminator's loss by their gap of log-densities, Eq. (5)."""

from __future__ import annotations

from torch import Tensor

from ...errors import UsageError
from ...gan.conditional import Judgement
from ...gan.gold import generated_gap
from ...gan.steps import FakeWeight


def signed_power(x: Tensor, beta: float) -> Tensor:
    """x^beta with x^beta = -|x|^beta below 0; 1 for beta 0, plain weights, where x is 0 too."""
    return x.sign() * x.abs().pow(beta) if beta else x.new_ones(x.shape)


def reweighting(*, start: int, beta: float = 1.0) -> FakeWeight:
    """`fake_weight` of `train_gan`: none before `start` images, then d^beta with the discriminator of that moment.

    beta: 1 in the paper, for the discriminator alone. Weights are neither clipped nor normalised, and a negative one
    turns its example's gradient round, as the authors confirm they mean it: over-represented regions are suppressed.
    Raises UsageError for a beta below 0.
    """
    if not 0 <= beta < float("inf"):
        raise UsageError(f"beta {beta} is out of range; expected 0 (no weights) or more, the paper has 1")

    def weight(judged: Judgement, labels: Tensor | None, nimg: int) -> Tensor | None:
        if nimg < start:
            return None
        if labels is None:
            raise UsageError("re-weighting by the gap of log-densities needs a conditional generator")
        return signed_power(generated_gap(judged, labels).detach(), beta)

    weight.__name__ = f"gold(beta={beta:g}, start={start})"
    return weight
