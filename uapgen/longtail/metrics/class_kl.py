"""How evenly a generator makes the classes: KL divergence of its predicted labels to uniform, in nats.

Rangwani, Mopuri, Babu, "Class balancing GAN with a classifier in the loop", 2021 label 50,000 samples by an annotator's
argmax. The annotator should be trained on balanced data and must not be the classifier that trained the generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UsageError

AUTHORS_SMOOTHING = 1e-5  # added to both distributions, which are not renormalised, in the authors' released code


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """How often each class occurs, (K,) int64 on the CPU, from labels (N,) int64.

    Raises UsageError for a label outside 0..K-1.
    """
    labels = labels.detach().cpu().long()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise UsageError(f"labels {found} for {num_classes} classes; expected 0..{num_classes - 1}")
    return torch.bincount(labels, minlength=num_classes)


def kl_to_uniform(counts: Tensor, smoothing: float = 0.0) -> float:
    """sum_k p_k log(p_k / u_k) in nats with p = counts / sum, u = 1/K: 0 for even counts, log K for one class only.

    counts: (K,), non-negative, not all zero. smoothing: 0 is exact (0 log 0 = 0); `AUTHORS_SMOOTHING` adds 1e-5 to p
    and to u without renormalising, as the released code does; with K = 10 the two differ by less than 2e-3.
    """
    total = float(counts.sum())
    if counts.ndim != 1 or total <= 0 or float(counts.min()) < 0:
        raise UsageError(
            f"class counts of shape {tuple(counts.shape)} sum to {total:g}; expected K counts, not all zero"
        )
    p = counts.double() / total + smoothing
    u = 1 / len(counts) + smoothing
    return float(torch.xlogy(p, p / u).sum())


def sampling_floor(num_classes: int, n: int) -> float:
    """The KL that n labels drawn from the uniform distribution show on average, (K - 1) / 2n nats to first order.

    2n KL is the likelihood-ratio statistic G, which tends to chi-squared with K - 1 degrees of freedom (Wilks, 1938). A
    KL near this floor says "even", not "uneven by that much".
    """
    return (num_classes - 1) / (2 * n)
