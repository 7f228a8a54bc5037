"""Classification losses for imbalanced data, on logits (B,K) and labels (B,); each is a mean over the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import UsageError

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
