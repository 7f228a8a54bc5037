"""What decides a GAN on labelled data, and what that adds to its generator's loss: class balancing, gSR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UsageError, did_you_mean
from ..gan import (
    AdversarialLoss,
    BigDiscriminator,
    BigGenerator,
    ClassBalance,
    DiscriminatorNetwork,
    GeneratorNetwork,
    GroupSpectral,
    SNDCDiscriminator,
    SNDCGenerator,
    SNResDiscriminator,
    SNResGenerator,
    TrainSettings,
    diff_augment,
    hinge,
    noise_scale,
    non_saturating,
    relativistic,
    relativistic_average,
)
from ..gan.steps import ExtraLoss
from ..victims import Victim
from .data import LabelledImages

LOSSES: dict[str, AdversarialLoss] = {
    "rsgan": relativistic,
    "ragan": relativistic_average,
    "hinge": hinge,
    "ns": non_saturating,
}


@dataclass(frozen=True)
class GanRecipe:
    """Networks, losses and lengths of one GAN. The defaults are the published CIFAR-10 baseline (SNDCGAN, RSGAN).

    network: sndcgan (16 or 32 pixels), resgan (32, 64, 128) or biggan (32, 64; conditional only).
    labels: none; auxiliary, an ACGAN; projection, a cGAN. loss: rsgan, ragan, hinge or ns (non-saturating).
    images: of generator steps, 100,000 steps of 256. ema_halflife, ema_start: in images. lr_d: the discriminator's
        rate, default lr too.
    balance: weight of the class-balancing regulariser, which needs a classifier; effective, window, alpha and
        first_window are those of `gan.victim_loss.ClassBalance`.
    gsr: weight of group spectral regularisation. noise: strength of the class-embedding noise, biggan only
        (published: 0.75). Both are for conditional networks.
    """

    network: Literal["sndcgan", "resgan", "biggan"] = "sndcgan"
    labels: Literal["none", "auxiliary", "projection"] = "none"
    loss: str = "rsgan"
    width: int = 64
    latent_dim: int = 128
    images: int = 25_600_000
    batch: int = 256
    lr: float = 2e-4
    lr_d: float | None = None
    beta1: float = 0.5
    beta2: float = 0.999
    d_steps: int = 1
    augment: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    ema_halflife: float = 1_774_000
    ema_start: int = 5_120_000
    balance: float = 0.0
    effective: bool = True
    window: int = 512_000
    alpha: float = 0.5
    first_window: float = 512.0
    gsr: float = 0.0
    noise: float = 0.0

    def check(self) -> None:
        """Raises UsageError when the parts do not go together."""
        for key, value, known in (
            ("network", self.network, ("sndcgan", "resgan", "biggan")),
            ("labels", self.labels, ("none", "auxiliary", "projection")),
            ("loss", self.loss, tuple(LOSSES)),
            ("precision", self.precision, ("fp32", "bf16")),
        ):
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UsageError(f"{key} {value!r} is unknown{hint}; expected {', '.join(known)}")
        if self.network == "biggan" and self.labels == "none":
            raise UsageError("biggan is conditional; set labels = projection (or auxiliary)")
        if self.labels == "none" and (self.gsr or self.noise):
            raise UsageError("gsr and noise act on class-conditional batch norms; set labels = projection or auxiliary")
        if self.noise and self.network != "biggan":
            raise UsageError(f"noise acts on biggan's shared class embedding; {self.network} has none")
        if self.images < 1 or self.batch < 2 or not min(self.rates) > 0:
            given = f"images {self.images}, batch {self.batch}, rates {self.rates}"
            raise UsageError(f"GAN recipe with {given}; expected at least 1, 2, and positive rates")
        self.training()

    @property
    def rates(self) -> tuple[float, float]:
        """Of the generator and of the discriminator."""
        return self.lr, self.lr if self.lr_d is None else self.lr_d

    def never_weighs(self) -> str | None:
        """Why the class weights of this recipe stay at 1 to the end, if they do: its first window closes too late."""
        first, last = -(-self.window // self.batch), -(-self.images // self.batch)
        if not (self.balance and self.effective) or first < last:
            return None
        fits = max(self.images // 50, self.batch)  # a fiftieth, as published
        return (
            f"the window of {self.window} images does not close before the last batch of {self.images}: all class "
            f"weights stay 1, and balance is a plain diversity loss; set e.g. window={fits}"
        )

    def training(self) -> TrainSettings:
        """Raises UsageError for numbers that make no training."""
        return TrainSettings(
            batch=self.batch,
            loss=LOSSES[self.loss],
            lr_g=self.rates[0],
            lr_d=self.rates[1],
            betas=(self.beta1, self.beta2),
            d_steps=self.d_steps,
            augment=diff_augment if self.augment else None,
            precision=self.precision,
            ema_halflife=self.ema_halflife,
            ema_start=self.ema_start,
        )

    def generator(self, counts: Tensor, size: int, seed: int) -> GeneratorNetwork:
        """The untrained generator for training counts (K,) and size x size pixels.

        Raises UsageError for a size that the network has no plan for.
        """
        k = None if self.labels == "none" else len(counts)
        if self.network == "biggan":
            assert k is not None
            noise = noise_scale(counts, strength=self.noise) if self.noise else None
            return BigGenerator(k, size, self.width, z_dim=self.latent_dim, noise=noise, seed=seed)
        if self.network == "resgan":
            return SNResGenerator(self.latent_dim, size, self.width, num_classes=k, seed=seed)
        return SNDCGenerator(self.latent_dim, self.width, size=size, num_classes=k, seed=seed)

    def discriminator(self, num_classes: int, size: int, seed: int) -> DiscriminatorNetwork:
        k = None if self.labels == "none" else num_classes
        head: Literal["projection", "auxiliary"] = "auxiliary" if self.labels == "auxiliary" else "projection"
        if self.network == "biggan":
            return BigDiscriminator(k, size, self.width, head=head, seed=seed)
        if self.network == "resgan":
            return SNResDiscriminator(size, self.width, num_classes=k, head=head, seed=seed)
        return SNDCDiscriminator(self.width, size=size, num_classes=k, head=head, seed=seed)


def check_classifier(data: LabelledImages, recipe: GanRecipe, classifier: Victim | None) -> None:
    """Raises UsageError when class balancing lacks a classifier, or has one of other classes than the data."""
    if not recipe.balance:
        return
    if classifier is None:
        raise UsageError(
            "class balancing needs a classifier in the loop; train one with 'uapgen gan classifier' and give it"
        )
    if classifier.num_classes != data.num_classes:
        raise UsageError(
            f"{classifier.name} has {classifier.num_classes} classes, {data.name} {data.num_classes}; "
            "expected equal numbers"
        )


def extra_losses(
    data: LabelledImages, recipe: GanRecipe, classifier: Victim | None, generator: GeneratorNetwork, seed: int
) -> dict[str, Any]:
    """The extra losses by name; each is also a part of the run's state."""
    parts: dict[str, Any] = {}
    if recipe.balance and classifier:
        parts["balance"] = ClassBalance(
            classifier,
            recipe.balance,
            effective=recipe.effective,
            window=recipe.window,
            alpha=recipe.alpha,
            first_window=recipe.first_window,
        )
    if recipe.gsr:
        beta = 0.99 if recipe.network == "biggan" else 0.999  # as published
        parts["gsr"] = GroupSpectral(generator, data.counts(), weight=recipe.gsr, beta=beta, seed=seed)
    return parts


def sum_of(losses: Mapping[str, ExtraLoss]) -> ExtraLoss | None:
    """One extra loss that is the sum of all, with the figures of each; None without any."""
    if not losses:
        return None

    def total(fake: Tensor, nimg: int) -> tuple[Tensor, dict[str, Any]]:
        found = [loss(fake, nimg) for loss in losses.values()]
        figures = {name: value for _, numbers in found for name, value in numbers.items()}
        return torch.stack([value for value, _ in found]).sum(), figures

    return total
