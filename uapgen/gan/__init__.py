"""Generative adversarial networks: residual networks, losses, the class-balancing regulariser and the training loop."""

from __future__ import annotations

from .balance import ClassFrequency, RunningMean, balance_loss, bound, coverage, mean_softmax, negentropy, optimum
from .ema import Ema
from .grid import save_grid
from .losses import AdversarialLoss, hinge, non_saturating, relativistic, relativistic_average
from .networks import Discriminator, Generator, sample_latents
from .trainer import train_gan

__all__ = [
    "AdversarialLoss",
    "ClassFrequency",
    "Discriminator",
    "Ema",
    "Generator",
    "RunningMean",
    "balance_loss",
    "bound",
    "coverage",
    "hinge",
    "mean_softmax",
    "negentropy",
    "non_saturating",
    "optimum",
    "relativistic",
    "relativistic_average",
    "sample_latents",
    "save_grid",
    "train_gan",
]
