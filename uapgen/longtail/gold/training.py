"""How one GAN of the experiments is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import UsageError
from ...gan import non_saturating, train_gan
from ...gan.conditional import DiscriminatorNetwork, GeneratorNetwork
from ...gan.steps import FakeWeight, Real
from ...runfolder import RunFolder

NEVER = 1 << 60


@dataclass(frozen=True)
class Training:
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
    training: Training,
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
