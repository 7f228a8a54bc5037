"""Generative adversarial networks: networks, losses, regularisers, augmentation and the training loop."""

from __future__ import annotations

from .augment import diff_augment
from .balance import ClassFrequency, RunningMean, balance_loss, bound, coverage, mean_softmax, negentropy, optimum
from .biggan import BigDiscriminator, BigGenerator
from .checkpoint import Ema
from .conditional import DiscriminatorNetwork, GeneratorNetwork
from .losses import (
    AdversarialLoss,
    GroupSpectral,
    hinge,
    noise_scale,
    non_saturating,
    rarity,
    relativistic,
    relativistic_average,
)
from .networks import SNDCDiscriminator, SNDCGenerator, SNResDiscriminator, SNResGenerator
from .sampling import sample_latents, sampler, save_grid
from .settings import Every, TrainSettings
from .trainer import train_gan
from .victim_loss import ClassBalance

__all__ = [
    "AdversarialLoss",
    "BigDiscriminator",
    "BigGenerator",
    "ClassBalance",
    "ClassFrequency",
    "DiscriminatorNetwork",
    "Ema",
    "Every",
    "GeneratorNetwork",
    "GroupSpectral",
    "RunningMean",
    "SNDCDiscriminator",
    "SNDCGenerator",
    "SNResDiscriminator",
    "SNResGenerator",
    "TrainSettings",
    "balance_loss",
    "bound",
    "coverage",
    "diff_augment",
    "hinge",
    "mean_softmax",
    "negentropy",
    "noise_scale",
    "non_saturating",
    "optimum",
    "rarity",
    "relativistic",
    "relativistic_average",
    "sample_latents",
    "sampler",
    "save_grid",
    "train_gan",
]
