"""Which real images the generators so far have missed: sampling weights from feature distances.

Slim, "Boosting generative networks for incremental learning", 2020, algorithm 1, as printed in the report: distances
are summed, A_sigma's threshold is mu - sigma. The report divides by d_max; within a class that is a scale, and each
class's weights are made to sum to 1/K here, so that no class gains by lying far away.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ...errors import UsageError

Method = Literal["A_mu", "A_sigma", "B", "C"]
METHODS: tuple[Method, ...] = get_args(Method)


def sample_weights(
    real: Tensor,
    real_labels: Tensor,
    fake: Tensor,
    fake_labels: Tensor,
    num_classes: int,
    method: Method,
    *,
    chunk: int = 1024,
) -> Tensor:
    """Probabilities (N,) float64 of drawing each real image, on the CPU; those of every class sum to 1/K.

    real, fake: features (N,F) and (M,F); labels (N,) and (M,), the generated images' being their conditions.
    Where a class gives no direction (all its images equally far), its images are equally probable. Raises UsageError
    for an unknown method, a class without real or without generated images, and labels or features that do not fit.
    """
    if method not in METHODS:
        raise UsageError(f"weighting {method!r} is unknown; expected {', '.join(METHODS)}")
    if len(real) != len(real_labels) or len(fake) != len(fake_labels) or real.shape[1:] != fake.shape[1:]:
        raise UsageError(
            f"features {tuple(real.shape)} and {tuple(fake.shape)} with {len(real_labels)} and {len(fake_labels)} "
            "labels; expected one label a row, and rows of one length"
        )
    weights = torch.zeros(len(real), dtype=torch.float64)
    for k in range(num_classes):
        mine, theirs = (real_labels == k).cpu(), (fake_labels == k).cpu()
        if not mine.any() or not theirs.any():
            lacking = "real" if not mine.any() else "generated"
            raise UsageError(f"class {k} has no {lacking} image; weights by distance need both in every class")
        far = transformed(relative(distance_sums(real[mine], fake[theirs], chunk=chunk)), method)
        weights[mine] = _share(far) / num_classes
    return weights


def distance_sums(real: Tensor, fake: Tensor, *, chunk: int = 1024) -> Tensor:
    """d(r), the sum of |phi(r) - phi(g)|_2 over all generated g: (N,) float64 on the CPU, for features (N,F), (M,F).

    `chunk` rows of the distance matrix exist at a time.
    """
    return torch.cat([torch.cdist(part, fake).double().sum(1).cpu() for part in real.split(chunk)])


def relative(distances: Tensor) -> Tensor:
    """w = (d - d_min) / d_max in [0,1), (n,); zeros where all distances are 0."""
    largest = distances.max()
    return (distances - distances.min()) / largest if largest > 0 else torch.zeros_like(distances)


def transformed(w: Tensor, method: Method) -> Tensor:
    """f(w; mu, sigma) of one class, (n,); sigma is that of the class itself, not an estimate from it.

    A_mu: 0 below mu. A_sigma: 0 below mu - sigma. B: 1 / (1 + exp(-2 (w - mu) / sigma)), and 1/2 where sigma is 0.
    C: w.
    """
    mu, sigma = w.mean(), w.std(correction=0)
    if method == "B":
        return torch.sigmoid(2 * (w - mu) / sigma) if sigma > 0 else torch.full_like(w, 0.5)
    if method == "C":
        return w
    threshold = mu if method == "A_mu" else mu - sigma
    return torch.where(w < threshold, 0.0, w)


def _share(w: Tensor) -> Tensor:
    """w over its sum; equal shares where that is 0."""
    total = w.sum()
    return w / total if total > 0 else torch.full_like(w, 1 / len(w))
