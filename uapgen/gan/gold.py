"""The gap of log-densities (GOLD), log p_data(x,c) - log p_g(x,c), read off an auxiliary-classifier discriminator.

Mo, Kim, Kim, Cho, Shin, "Mining GOLD samples for conditional GANs", 2019. A high gap is an under-represented example.
The marginal part log D/(1-D) is the discriminator's logit; the conditional part comes from its classifier, where the
estimator takes p_g(c|x) to be 1 for a generated x of class c, and p_data(c|x) to be 1 for a real one. What is done with
it: longtail/gold, and gold_proxy for the flagship.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError
from .conditional import Judgement


def conditional(judged: Judgement, labels: Tensor) -> Tensor:
    """q = log D_C(c|x) of the given labels (B,), never above 0. Raises UsageError without an auxiliary classifier."""
    return _log_classes(judged).gather(1, labels.unsqueeze(1)).squeeze(1)


def entropy(judged: Judgement) -> Tensor:
    """H[D_C(.|x)] (B,) in nats, the expectation of -q over the classifier's own classes, Eq. (7)."""
    logs = _log_classes(judged)
    return -(logs.exp() * logs).sum(1)


def generated_gap(judged: Judgement, labels: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """m + scale q (B,), Eq. (3); `scale` from `deviation_ratio` or `rejection_scale` makes it the balanced Eq. (4)."""
    return judged.logits + scale * conditional(judged, labels)


def real_gap(judged: Judgement, labels: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """m - scale q (B,): for a real image the classifier stands for p_g(c|x), hence the sign."""
    return judged.logits - scale * conditional(judged, labels)


def unlabelled_gap(judged: Judgement, *, balanced: bool = False) -> Tensor:
    """m + H (B,), Eq. (8); balanced: m + (std m / std H) H over this set, Eq. (9)."""
    uncertainty = entropy(judged)
    scale = deviation_ratio(judged.logits, uncertainty) if balanced else 1.0
    return judged.logits + scale * uncertainty


def deviation_ratio(marginal: Tensor, conditional: Tensor) -> Tensor:
    """sigma_G / sigma_C over a set, both (N,): what Eq. (4) and (9) scale the conditional part by; 0 if that is
    constant, since it then tells no two samples apart.
    """
    return _ratio(_deviation(marginal), _deviation(conditional))


def rejection_scale(marginal: Tensor, conditional: Tensor) -> Tensor:
    """w = std(m) / rms(q): the authors' released rejection code divides by the root mean square, not by the deviation,
    so that a classifier that is constantly unsure is not blown up. 0 if q is 0 everywhere.
    """
    return _ratio(_deviation(marginal), conditional.square().mean().sqrt())


def top(scores: Tensor, k: int) -> Tensor:
    """Indices (k,) of the k highest scores, highest first; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:k]


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation; 0 where it is no more than rounding, which a ratio would blow up."""
    spread = values.std(correction=0)
    return torch.where(spread > 4 * torch.finfo(values.dtype).eps * values.abs().max(), spread, 0.0)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0.0)


def _log_classes(judged: Judgement) -> Tensor:
    if judged.classes is None:
        raise UsageError(
            "the gap of log-densities needs a discriminator with an auxiliary classifier: head='auxiliary'"
        )
    return judged.classes.log_softmax(1)
