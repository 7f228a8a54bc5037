"""Improved precision and recall: are samples inside the real manifold, and the other way round?

Kynkäänniemi et al., 2019: a manifold is the union of balls around its points, each reaching to its k-th neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UsageError
from ...evaluation.intervals import Rate


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances (N,M) between rows of x (N,F) and y (M,F), never negative."""
    return (x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T).clamp_min(0)


def neighbour_radii(x: Tensor, k: int, chunk: int = 2048) -> Tensor:
    """Squared distance (N,) of each row of x (N,F) to its k-th nearest other row; `chunk` rows at a time."""
    if not 0 < k < len(x):
        raise UsageError(f"the {k}-th neighbour among {len(x)} images does not exist; give more images or a smaller k")
    radii = []
    for start in range(0, len(x), chunk):
        distances = squared_distances(x[start : start + chunk], x)
        rows = torch.arange(len(distances), device=x.device)
        distances[rows, start + rows] = torch.inf  # a point is no neighbour of its own
        radii.append(distances.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def share_inside(points: Tensor, manifold: Tensor, radii: Tensor, chunk: int = 2048) -> Rate:
    """How many of `points` (N,F) lie in a ball of `manifold` (M,F) with squared `radii` (M,)."""
    inside = sum(
        int((squared_distances(points[start : start + chunk], manifold) <= radii).any(1).sum())
        for start in range(0, len(points), chunk)
    )
    return Rate(inside, len(points))


def precision_recall(fake: Tensor, real: Tensor, *, k: int = 3, chunk: int = 2048) -> tuple[Rate, Rate]:
    """Precision (share of fake in the real manifold) and recall (share of real in the fake manifold), as `Rate`s.

    fake (N,F), real (M,F): features of one network. k: 3 is published, with as many fake images as real ones; both
    numbers depend on N and M, so compare only equal ones. Distances are float64 about the real mean: the expanded
    square loses digits when features are far from the origin.
    """
    if fake.shape[1] != real.shape[1]:
        raise UsageError(f"features of {fake.shape[1]} and {real.shape[1]} dimensions; expected one network's")
    centre = real.double().mean(0)
    fake, real = fake.double().to(real.device) - centre, real.double() - centre
    precision = share_inside(fake, real, neighbour_radii(real, k, chunk), chunk)
    recall = share_inside(real, fake, neighbour_radii(fake, k, chunk), chunk)
    return precision, recall
