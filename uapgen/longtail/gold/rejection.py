"""Rejection sampling by the balanced gap of log-densities, Eq. (6), with the percentile shift of Azadi et al., 2018."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ...errors import UapgenError, UsageError
from ...gan.conditional import DiscriminatorNetwork, GeneratorNetwork, Judgement
from ...gan.gold import conditional, generated_gap, rejection_scale
from ...gan.sampling import samples
from ...runtime import rng

EPSILON = 1e-6  # keeps the shifted logit finite where the acceptance rate is 0 or 1


@dataclass(frozen=True)
class Calibration:
    """`scale` w of the conditional part, and `log_bound`, the logarithm of M.

    log M is the largest marginal part seen. Since q is never positive and w never negative, m + w q cannot exceed it.
    """

    scale: float
    log_bound: float

    def raised(self, marginal: Tensor) -> Calibration:
        """The same with M raised to the marginal parts (B,) of a new batch, so that it stays an upper bound."""
        return Calibration(self.scale, max(self.log_bound, float(marginal.max())))


def calibration(marginal: Tensor, conditional: Tensor) -> Calibration:
    """From m and q (N,) of generated samples; 50,000 in the paper. Raises UapgenError unless all are finite."""
    if not (marginal.isfinite().all() and conditional.isfinite().all()):
        raise UapgenError("the discriminator's judgement of the samples is not finite; train it with lower rates")
    return Calibration(float(rejection_scale(marginal, conditional)), float(marginal.max()))


def check_percentile(percentile: float | None) -> None:
    """Raises UsageError for a percentile outside 0..100; None is no shift."""
    if percentile is not None and not 0 <= percentile <= 100:
        raise UsageError(f"percentile {percentile} is outside 0..100; the paper has 10 for grey images, 50 for colour")


def acceptance(gap: Tensor, log_bound: float, percentile: float | None) -> Tensor:
    """Probabilities (B,) float64 of keeping samples with balanced gaps (B,), never falling as the gap rises.

    With percentile None, r/M = exp(gap - log_bound) itself: exact rejection sampling where the gap is exact. Else
    sigmoid(f - gamma), with f the logit of r/M and gamma that percentile of f in this batch: a sample at the percentile
    is kept with probability one half, however small M makes r/M.
    """
    check_percentile(percentile)
    rate = (gap.double() - log_bound).clamp(max=0).exp()
    if percentile is None:
        return rate
    logit = ((rate + EPSILON) / (1 - rate + EPSILON)).log()
    return (logit - logit.quantile(percentile / 100)).sigmoid()


@torch.no_grad()
def calibrate(
    generator: GeneratorNetwork, discriminator: DiscriminatorNetwork, *, samples: int = 50_000, seed: int = 0
) -> Calibration:
    """`calibration` on that many samples of uniform classes. Both networks should be in eval mode."""
    parts = [(judged.logits, conditional(judged, y)) for _, y, judged in draw(generator, discriminator, samples, seed)]
    marginal, by_class = (torch.cat(part) for part in zip(*parts, strict=True))
    return calibration(marginal, by_class)


@torch.no_grad()
def rejection_samples(
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    per_class: int,
    *,
    percentile: float | None,
    calibration: Calibration,
    batch: int = 100,
    tries: int = 10_000,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Accepted samples, exactly `per_class` of each class: images (K per_class,...) and labels, class after class.

    batch: over which the percentile is taken; 100 in the authors' code. tries: batches for each class.
    M is raised whenever a batch exceeds it, so that it stays a bound. Both networks should be in eval mode.
    Raises UapgenError, saying how far it came, when a class is not full after `tries` batches.
    """
    check_percentile(percentile)
    if per_class < 1 or batch < 1 or tries < 1:
        raise UsageError(f"{per_class} samples a class from {tries} batches of {batch}; expected at least 1 of each")
    assert generator.num_classes is not None
    images, bound = [], calibration
    for label in range(generator.num_classes):
        kept: list[Tensor] = []
        held, coins = 0, rng(seed, "gold-accept", label)
        for x, y, judged in islice(draw(generator, discriminator, None, seed, batch, label), tries):
            bound = bound.raised(judged.logits)
            rate = acceptance(generated_gap(judged, y, bound.scale), bound.log_bound, percentile)
            accepted = torch.rand(len(x), generator=coins, dtype=torch.float64).to(rate.device) < rate
            kept.append(x[accepted])
            held += len(kept[-1])
            if held >= per_class:
                break
        else:
            raise UapgenError(
                f"class {label} has {held} of {per_class} samples after {tries} batches of {batch}; "
                "lower the percentile (None needs the most), raise `tries`, or train the GAN further"
            )
        images.append(torch.cat(kept)[:per_class])
    labels = torch.arange(len(images), device=images[0].device).repeat_interleave(per_class)
    return torch.cat(images), labels


def draw(
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    number: int | None,
    seed: int,
    batch: int = 100,
    label: int | None = None,
) -> Iterator[tuple[Tensor, Tensor, Judgement]]:
    """Batches of samples, labels (B,) and what the discriminator says; without end if `number` is None.

    label: of all samples; None draws uniform ones.
    """
    draws, left = rng(seed, "gold-draw", label), number
    while left is None or left > 0:
        n = batch if left is None else min(batch, left)
        x, y = samples(generator, n, draws, labels="uniform" if label is None else label)
        yield x, y, discriminator.judge(x, y)
        left = None if left is None else left - n
