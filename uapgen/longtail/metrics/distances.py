"""Distances between sets of features: Fréchet (Heusel et al., 2017), KID, improved precision and recall.

Fréchet: between Gaussians fitted to both sets, from moments that stream and merge (Dowson, Landau, 1982). With
Inception features it is the FID; what it is called depends on the features, see `features.Features.distance`.
KID: the unbiased squared MMD with the cubic polynomial kernel (Bińkowski et al., 2018). Unlike the Fréchet distance
its expectation does not depend on the number of images, so it suits rare classes. Precision and recall: Kynkäänniemi
et al., 2019; a manifold is the union of balls around its points, each reaching to its k-th neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import UapgenError, UsageError
from ...evaluation.intervals import Rate


class Moments:
    """Mean (F,) and covariance (F,F) of features that arrive in batches, in float64; only sums over batches are kept.

    Deviations are taken from the running mean (Chan, Golub, LeVeque, 1983), so that large means cost no digits.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, features: Tensor | Iterable[Tensor]) -> Moments:
        """Moments of features (N,F), or of an iterable of such batches."""
        moments: Moments | None = None
        for batch in [features] if isinstance(features, Tensor) else features:
            moments = moments or cls(batch.shape[1], batch.device)
            moments.update(batch)
        if moments is None:
            raise UsageError("no features to take moments of; expected at least 2 images")
        return moments

    def update(self, features: Tensor) -> None:
        """Adds a batch (B,F). Raises UapgenError for values that are not finite."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise UsageError(f"features of shape {tuple(features.shape)}; expected (B,{len(self.mean)})")
        if not features.isfinite().all():
            raise UapgenError("features hold NaN or infinity; check the images that they were taken from")
        batch = features.to(self.mean.device, torch.float64)
        other = Moments(len(self.mean), self.mean.device)
        other.n = len(batch)
        if other.n:
            other.mean = batch.mean(0)
            centred = batch - other.mean
            other.scatter = centred.T @ centred
            self.merge(other)

    def merge(self, other: Moments) -> None:
        """Takes over another set's sums, from another batch or another process."""
        total = self.n + other.n
        if other.n == 0:
            return
        shift = other.mean - self.mean
        self.scatter += other.scatter + torch.outer(shift, shift) * (self.n * other.n / total)
        self.mean = self.mean + shift * (other.n / total)
        self.n = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased, (F,F). Raises UsageError for fewer than two images."""
        if self.n < 2:
            raise UsageError(f"a covariance needs at least 2 images, not {self.n}")
        return self.scatter / (self.n - 1)


def psd_root(matrix: Tensor) -> Tensor:
    """The symmetric square root (F,F) of a positive semi-definite matrix; eigenvalues that rounding made < 0 are 0."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr (AB)^(1/2), squared units of the features; symmetric, never negative.

    The eigenvalues of AB are the squared singular values of A^(1/2) B^(1/2), so the last trace is the sum of those
    singular values. That needs no square root of a non-symmetric matrix, gives no imaginary part, and takes singular
    covariances (fewer images than features) as they are.
    """
    if len(a.mean) != len(b.mean):
        raise UsageError(
            f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared; use one network"
        )
    cov_a, cov_b = a.covariance, b.covariance.to(a.mean.device)
    cross = torch.linalg.svdvals(psd_root(cov_a) @ psd_root(cov_b)).sum()
    means = (a.mean - b.mean.to(a.mean.device)).square().sum()
    return max(0.0, float(means + cov_a.trace() + cov_b.trace() - 2 * cross))


@dataclass(frozen=True)
class Kid:
    """`mean` and `std` of the blocks' MMD^2 (std is not the error of the mean: blocks overlap), and what was drawn."""

    mean: float
    std: float
    blocks: int
    block_size: int


def polynomial_kernel(x: Tensor, y: Tensor, degree: int = 3, coef0: float = 1.0) -> Tensor:
    """(x.y / F + coef0)^degree, (N,M), of features (N,F) and (M,F)."""
    return (x @ y.T / x.shape[1] + coef0) ** degree


def mmd2(x: Tensor, y: Tensor) -> float:
    """Unbiased squared MMD of features (N,F), (M,F), all pairs, in float64; may be slightly negative.

    mean_{i!=j} k(x_i,x_j) + mean_{i!=j} k(y_i,y_j) - 2 mean_{i,j} k(x_i,y_j). Gretton et al., 2012, Eq. (3).
    """
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise UsageError(f"the unbiased MMD needs at least 2 images on each side, not {n} and {m}")
    own_x, own_y = polynomial_kernel(x, x), polynomial_kernel(y, y)
    within = (own_x.sum() - own_x.trace()) / (n * (n - 1)) + (own_y.sum() - own_y.trace()) / (m * (m - 1))
    return float(within - 2 * polynomial_kernel(x, y).mean())


def kid(x: Tensor, y: Tensor, generator: torch.Generator, *, blocks: int = 100, block_size: int = 1000) -> Kid:
    """Mean and standard deviation of `mmd2` over random blocks, each drawn from x (N,F), y (M,F) without replacement.

    block_size falls to the smaller set where there are fewer images; the result says what was used. Published: 100
    blocks of 1000. generator: a CPU generator.
    """
    if blocks < 1:
        raise UsageError(f"{blocks} blocks; expected at least 1")
    size = min(block_size, len(x), len(y))
    values = torch.tensor(
        [
            mmd2(x[_pick(len(x), size, generator).to(x.device)], y[_pick(len(y), size, generator).to(y.device)])
            for _ in range(blocks)
        ],
        dtype=torch.float64,
    )
    std = float(values.std()) if blocks > 1 else math.nan
    return Kid(float(values.mean()), std, blocks, size)


def _pick(n: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:size]


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
