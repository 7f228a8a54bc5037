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
from ...gan import Every, TrainSettings, non_saturating, train_gan
from ...gan.conditional import DiscriminatorNetwork, GeneratorNetwork, Judgement
from ...gan.gold import generated_gap
from ...gan.settings import FakeWeight, described
from ...gan.steps import Real
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

    def reweighting(self) -> Reweighting:
        return Reweighting(int(self.start * self.images), self.beta)

    def settings(self, fake_weight: FakeWeight | None = None, fake_class: float | None = None) -> TrainSettings:
        """The non-saturating loss with equal rates and no moving average. fake_class: in place of the field."""
        return TrainSettings(
            batch=self.batch,
            loss=non_saturating,
            lr_g=self.lr,
            lr_d=self.lr,
            betas=(0.5, 0.999),
            fake_auxiliary=self.fake_class if fake_class is None else fake_class,
            fake_weight=fake_weight,
            ema_start=NEVER,
        )


def train(
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    real: Real,
    settings: TrainSettings,
    *,
    folder: Path,
    about: dict[str, Any],
    images: int,
    seed: int,
    device: torch.device,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Trains both in place, up to `images`; a larger number in a later call goes on from there.

    settings: from `GoldTraining.settings`. about: what else makes this run another one; JSON.
    The generator is left as it is, in train mode: the paper takes no moving average.
    """
    options = {**about, "seed": seed, "batch": settings.batch, "lr": settings.lr_g}
    weight = described(settings.fake_weight, "fake_weight")
    train_gan(
        generator,
        discriminator,
        real,
        settings,
        folder=RunFolder(folder, {**options, "fake_class": settings.fake_auxiliary, "fake_weight": weight}),
        images=images,
        every=Every(save=100 * settings.batch),
        seed=seed,
        device=device,
        callback=callback,
    )


def signed_power(x: Tensor, beta: float) -> Tensor:
    """x^beta with x^beta = -|x|^beta below 0; 1 for beta 0, plain weights, where x is 0 too."""
    return x.sign() * x.abs().pow(beta) if beta else x.new_ones(x.shape)


@dataclass(frozen=True)
class Reweighting:
    """`fake_weight` of `TrainSettings`: none before `start` images, then d^beta with the discriminator of that moment.

    beta: 1 in the paper, for the discriminator alone. Weights are neither clipped nor normalised, and a negative one
    turns its example's gradient round, as the authors confirm they mean it: over-represented regions are suppressed.
    Raises UsageError for a beta below 0.
    """

    start: int
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise UsageError(f"beta {self.beta} is out of range; expected 0 (no weights) or more, the paper has 1")

    def __call__(self, judged: Judgement, labels: Tensor | None, nimg: int) -> Tensor | None:
        if nimg < self.start:
            return None
        if labels is None:
            raise UsageError("re-weighting by the gap of log-densities needs a conditional generator")
        return signed_power(generated_gap(judged, labels).detach(), self.beta)

    def describe(self) -> str:
        return f"gold(beta={self.beta:g}, start={self.start})"
