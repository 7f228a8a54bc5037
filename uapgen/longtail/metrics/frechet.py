"""The Fréchet distance between Gaussians fitted to two sets of features, from moments that stream and merge.

Dowson, Landau, 1982 (the formula); Heusel et al., 2017 (with Inception features it is the FID). What the distance is
called depends on the features: see `features.Features.distance`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ...errors import UapgenError, UsageError


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
