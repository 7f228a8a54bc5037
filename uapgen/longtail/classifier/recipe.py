"""What decides a classifier, and losses for imbalanced data: on logits (B,K) and labels (B,), means over the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained. Epochs and shares of them, so that a short run keeps the shape of the long one.

    The defaults are the published recipe: Cao et al., 2019, with the focal loss that Rangwani et al., 2021, used.

    loss: ce, focal or ldam (which brings a cosine head). deferred: class weights from `decay_at[0]` on (DRW).
    decay_at, decays: from which share of the epochs on the rate is lr times which factor.
    flip: mirrors half of the images; None asks the data. pad: black pixels around the random crop, 0 is no crop.
    """

    depth: int = 32
    width: int = 16
    loss: str = "focal"
    deferred: bool = True
    epochs: int = 200
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    warmup: int = 5
    decay_at: tuple[float, ...] = (0.8, 0.9)
    decays: tuple[float, ...] = (0.01, 0.0001)
    pad: int = 4
    flip: bool | None = None

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0: linear warm-up, then steps."""
        if epoch < self.warmup:
            return self.lr * (epoch + 1) / self.warmup
        passed = [f for at, f in zip(self.decay_at, self.decays, strict=True) if epoch >= round(at * self.epochs)]
        return self.lr * (passed[-1] if passed else 1.0)

    def reweights(self, epoch: int) -> bool:
        return self.deferred and bool(self.decay_at) and epoch >= round(self.decay_at[0] * self.epochs)

    @property
    def weighs_classes(self) -> bool:
        """Whether the loss depends on how many images each class has."""
        return self.deferred or self.loss == "ldam"

    def check(self) -> None:
        """Raises UsageError when the numbers make no recipe."""
        if self.epochs < 1 or self.batch < 2 or self.pad < 0 or not self.lr > 0:
            given = f"{self.epochs} epochs, batch {self.batch}, pad {self.pad}, lr {self.lr}"
            raise UsageError(f"classifier recipe with {given}; expected at least 1, 2 and 0, and a positive rate")
        if len(self.decay_at) != len(self.decays) or list(self.decay_at) != sorted(self.decay_at):
            raise UsageError(f"decay_at {self.decay_at} and decays {self.decays} must pair up, earliest first")


ClassificationLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def effective_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Class weights (K,) float32 that sum to K: w_k ~ (1 - beta) / (1 - beta^n_k), for counts n (K,) > 0.

    Cui, Jia, Lin, Song, Belongie, "Class-balanced loss based on effective number of samples", 2019.
    Raises UsageError for an empty class or for beta outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise UsageError(f"beta {beta} is outside [0, 1); expected e.g. 0.9999")
    _require_every_class(counts)
    weights = (1 - beta) / (1 - beta ** counts.double())
    return (weights * len(weights) / weights.sum()).float()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """-log p_y, averaged with class weights (K,) where they are given."""
    return F.cross_entropy(logits.float(), labels, weight=weights)


def focal(logits: Tensor, labels: Tensor, weights: Tensor | None = None, gamma: float = 1.0) -> Tensor:
    """Mean of (1 - e^-c)^gamma c with c = -w_y log p_y. Without weights e^-c is p_y: Lin et al., "Focal loss for dense
    object detection", 2017.

    With weights, c in the exponent is the weighted one, and the mean is over images and not over weights: so did the
    code behind the published classifiers.
    """
    c = F.cross_entropy(logits.float(), labels, weight=weights, reduction="none")
    return ((-torch.expm1(-c)).pow(gamma) * c).mean()


def ldam_margins(counts: Tensor, largest: float = 0.5) -> Tensor:
    """Margins (K,) float32 proportional to n_k^(-1/4), the largest being `largest`. LDAM: Cao, Wei, Gaidon,
    Arechiga, Ma, "Learning imbalanced datasets with label-distribution-aware margin loss", 2019.

    Raises UsageError for an empty class.
    """
    _require_every_class(counts)
    margins = counts.double().pow(-0.25)
    return (margins * (largest / margins.max())).float()


def ldam(logits: Tensor, labels: Tensor, margins: Tensor, weights: Tensor | None = None, scale: float = 30.0) -> Tensor:
    """Cross-entropy after the true class's logit was lowered by scale * margin, margins (K,) from `ldam_margins`.

    `logits` are those of `resnet.CosineLinear`, cosines times the same scale.
    """
    lowered = logits.float() - scale * margins[labels].unsqueeze(1) * F.one_hot(labels, logits.shape[1])
    return F.cross_entropy(lowered, labels, weight=weights)


def classification_loss(name: str, counts: Tensor) -> ClassificationLoss:
    """`loss(logits, labels, weights)` by name: ce, focal (gamma 1), or ldam with the margins of `counts` (K,).

    Raises UsageError for another name.
    """
    if name == "ce":
        return cross_entropy
    if name == "focal":
        return focal
    if name == "ldam":
        margins = ldam_margins(counts)
        return lambda logits, labels, weights: ldam(logits, labels, margins, weights)
    raise UsageError(f"loss {name!r} is unknown; expected ce, focal or ldam")


def _require_every_class(counts: Tensor) -> None:
    if int(counts.min()) < 1:
        raise UsageError(f"class {int(counts.argmin())} has no image; this loss needs at least one of every class")
