"""GANs of GOLD's experiments, with generated images weighted by their gap of log-densities in the discriminator's
loss, Eq. (5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UsageError
from ...gan import non_saturating, train_gan
from ...gan.conditional import DiscriminatorNetwork, GeneratorNetwork, Judgement
from ...gan.gold import generated_gap
from ...gan.steps import FakeWeight, Real
from ...runfolder import RunFolder

NEVER = 1 << 60


@dataclass(frozen=True)
class GoldTraining:
    """How GANs are trained; the defaults are the paper's, but for `images`, which it counts in epochs.

    fake_class: lambda_c, the factor of the class loss on generated images in the discriminator's step.
    beta: of re-weighting, which begins after the share `start` of the images.
    """

    images: int
    batch: int = 128
    lr: float = 2e-4
    fake_class: float = 0.1
    beta: float = 1.0
    start: float = 0.5

    def check(self) -> None:
        """Raises UsageError when the numbers make no training."""
        if self.images < 1 or self.batch < 2 or not self.lr > 0 or self.fake_class < 0 or self.beta < 0:
            raise UsageError(f"GAN training with {self}; expected images, a batch above 1, and no negative number")
        if not 0 <= self.start < 1:
            raise UsageError(f"start {self.start} is not a share of the training in [0,1); the paper has 0.5")


def train(
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    real: Real,
    training: GoldTraining,
    *,
    folder: Path,
    about: dict[str, Any],
    images: int | None = None,
    fake_class: float | None = None,
    fake_weight: FakeWeight | None = None,
    seed: int,
    device: torch.device,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Trains both in place by the non-saturating loss, up to `images` (default: all of the plan's).

    about: what else makes this run another one; JSON. images: a larger number in a later call goes on from there.
    The generator is left as it is, in train mode: the paper takes no moving average.
    """
    lambda_c = training.fake_class if fake_class is None else fake_class
    options = {**about, "seed": seed, "batch": training.batch, "lr": training.lr, "fake_class": lambda_c}
    train_gan(
        generator,
        discriminator,
        real,
        folder=RunFolder(folder, {**options, "fake_weight": getattr(fake_weight, "__name__", None)}),
        images=training.images if images is None else images,
        batch=training.batch,
        loss=non_saturating,
        lr_g=training.lr,
        lr_d=training.lr,
        betas=(0.5, 0.999),
        fake_auxiliary=lambda_c,
        fake_weight=fake_weight,
        ema_start=NEVER,
        save_every=100 * training.batch,
        seed=seed,
        device=device,
        callback=callback,
    )


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
