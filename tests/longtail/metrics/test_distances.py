"""Fréchet, KID, precision and recall: closed forms, SciPy and brute force as references, streams and merges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from uapgen.errors import UapgenError, UsageError
from uapgen.longtail.metrics import Moments, frechet_distance, kid, mmd2, precision_recall
from uapgen.longtail.metrics.distances import psd_root
from uapgen.runtime import rng


def normal(n: int, dim: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Correlated Gaussian features (n,dim) float32."""
    mixing = torch.randn(dim, dim, generator=rng(seed, "mixing")) / math.sqrt(dim)
    return shift + scale * torch.randn(n, dim, generator=rng(seed, "draws")) @ mixing


def scipy_frechet(x: Tensor, y: Tensor) -> float:
    """The published formula, literally."""
    from scipy.linalg import sqrtm

    a, b = x.double().numpy(), y.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b))))


def gaussian_moments(mean: Tensor, covariance: Tensor) -> Moments:
    moments = Moments(len(mean))
    moments.n, moments.mean, moments.scatter = 2, mean.double(), covariance.double()
    return moments


@pytest.mark.parametrize("dim", [1, 5, 64])
def test_frechet_is_scipys(dim: int) -> None:
    x, y = normal(500, dim, 0), normal(300, dim, 1, scale=1.5, shift=0.3)
    expected = scipy_frechet(x, y) if dim > 1 else float((x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-5)


def test_frechet_of_diagonal_gaussians_has_a_closed_form() -> None:
    a, b, shift = torch.tensor([1.0, 4.0, 0.0]), torch.tensor([9.0, 4.0, 2.0]), torch.tensor([1.0, -2.0, 0.5])
    expected = float(shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    found = frechet_distance(gaussian_moments(torch.zeros(3), a.diag()), gaussian_moments(shift, b.diag()))
    assert found == pytest.approx(expected, rel=1e-12)


def test_frechet_with_fewer_images_than_dimensions_is_finite_symmetric_and_zero_for_equal_sets() -> None:
    x, y = Moments.of(normal(10, 64, 0)), Moments.of(normal(12, 64, 1))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x, y) > 1


def test_frechet_of_a_constant_feature() -> None:
    x = torch.cat([normal(50, 4, 0), torch.zeros(50, 1)], 1)
    y = torch.cat([normal(50, 4, 0), torch.full((50, 1), 3.0)], 1)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(9, rel=1e-6)


def test_moments_are_numpys_however_the_features_arrive() -> None:
    x = normal(101, 7, 0, shift=1e3)
    streamed = Moments.of(x.split(9))
    left, right = Moments.of(x[:60]), Moments.of(x[60:])
    left.merge(right)
    left.merge(Moments(7))
    for moments in (Moments.of(x), streamed, left):
        assert moments.n == 101
        np.testing.assert_allclose(moments.mean.numpy(), x.double().numpy().mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance.numpy(), np.cov(x.double().numpy(), rowvar=False), rtol=1e-8)


def test_the_root_squares_to_the_matrix() -> None:
    matrix = Moments.of(normal(10, 20, 0)).covariance
    root = psd_root(matrix)
    torch.testing.assert_close(root @ root, matrix, rtol=1e-10, atol=1e-12)


def test_features_that_no_distance_can_come_from() -> None:
    with pytest.raises(UapgenError, match="NaN"):
        Moments.of(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(UsageError, match="2 images"):
        frechet_distance(Moments.of(normal(1, 3, 0)), Moments.of(normal(5, 3, 0)))
    with pytest.raises(UsageError, match="3 and of 4"):
        frechet_distance(Moments.of(normal(5, 3, 0)), Moments.of(normal(5, 4, 0)))
    with pytest.raises(UsageError, match="no features"):
        Moments.of([])


def test_mmd_on_four_points_by_hand() -> None:
    # k(a,b) = (ab + 1)^3 in one dimension: within x k(0,1) = 1; within y k(2,-1) = -1; across 1, 1, 27, 0.
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [-1.0]])
    assert mmd2(x, y) == pytest.approx(1 - 1 - 2 * (1 + 1 + 27 + 0) / 4, abs=1e-12)


def test_mmd_is_the_double_loop() -> None:
    x, y = normal(6, 4, 0).double(), normal(5, 4, 1).double()

    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        terms = [float(p @ q / 4 + 1) ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return sum(terms) / len(terms)

    assert mmd2(x, y) == pytest.approx(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False), rel=1e-10)


def test_mmd_is_unbiased_on_sets_of_ten() -> None:
    draws = normal(300 * 20, 8, 0).view(300, 2, 10, 8)
    values = torch.tensor([mmd2(x, y) for x, y in draws], dtype=torch.float64)
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean())) < 3 * error
    assert float((values < 0).double().mean()) > 0.3  # an unbiased estimate of zero falls on both sides
    assert mmd2(normal(100, 8, 0), normal(100, 8, 0, shift=1)) > 20 * error


def test_kid_of_one_block_of_everything_is_the_mmd_and_a_small_set_shrinks_the_block() -> None:
    x, y = normal(20, 4, 0), normal(30, 4, 1)
    whole = kid(x, y[:20], rng(0), blocks=1)
    assert whole.mean == pytest.approx(mmd2(x, y[:20]), rel=1e-9)
    assert whole.block_size == 20 and math.isnan(whole.std)
    assert kid(x, y, rng(0), blocks=3) == kid(x, y, rng(0), blocks=3)
    with pytest.raises(UsageError, match="at least 2"):
        kid(x[:1], y, rng(0))


def brute_force_share(points: Tensor, manifold: Tensor, k: int) -> float:
    distances = torch.cdist(manifold, manifold, compute_mode="donot_use_mm_for_euclid_dist")
    radii = distances.sort(1).values[:, k]  # the nearest is the point itself
    inside = [bool(((point - manifold).norm(dim=1) <= radii).any()) for point in points]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_precision_and_recall_are_brute_forces(k: int, chunk: int) -> None:
    fake, real = normal(60, 3, 0, scale=1.2, shift=20.3), normal(50, 3, 1, shift=20)
    precision, recall = precision_recall(fake, real, k=k, chunk=chunk)
    assert precision.value == pytest.approx(brute_force_share(fake.double(), real.double(), k))
    assert recall.value == pytest.approx(brute_force_share(real.double(), fake.double(), k))
    assert 0 < precision.value < 1 and 0 < recall.value < 1


def test_precision_and_recall_on_a_line() -> None:
    real = torch.tensor([[0.0], [1.2], [3.2]])  # with k = 1 the radii are 1.2, 1.2, 2: the manifold is [-1.2, 5.2]
    fake = torch.tensor([[-0.5], [4.5], [6.0], [-2.0]])  # radii 1.5 each: [-3.5, 1] and [3, 7.5]
    precision, recall = precision_recall(fake, real, k=1)
    assert (precision.count, precision.n) == (2, 4)
    assert (recall.count, recall.n) == (2, 3)


def test_a_collapsed_generator_is_precise_and_recalls_little() -> None:
    real = normal(200, 2, 0)
    precision, recall = precision_recall(real[:1] + 1e-3 * normal(200, 2, 1), real)
    assert precision.value == 1 and recall.value < 0.1
    with pytest.raises(UsageError, match="3-th neighbour"):
        precision_recall(real[:3], real)


def test_torchmetrics_agrees() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    x, y = Moments.of(normal(200, 16, 0)), Moments.of(normal(200, 16, 1))
    theirs = fid._compute_fid(x.mean, x.covariance, y.mean, y.covariance)
    assert frechet_distance(x, y) == pytest.approx(float(theirs), rel=1e-6)


def test_torch_fidelity_agrees() -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity is not installed")
    kid_module = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is not installed")
    x, y = normal(200, 16, 0), normal(200, 16, 1)
    theirs = fidelity.fid_statistics_to_metric(
        fidelity.fid_features_to_statistics(x), fidelity.fid_features_to_statistics(y), False
    )
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-6
    )
    block = kid_module.kid_features_to_metric(
        x, y, kid_subsets=1, kid_subset_size=200, kid_degree=3, kid_gamma=None, kid_coef0=1, verbose=False, rng_seed=0
    )
    assert mmd2(x, y) == pytest.approx(block["kernel_inception_distance_mean"], rel=1e-5)
