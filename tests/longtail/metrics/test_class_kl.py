"""Class KL, its figure, MS-SSIM within classes, the classification accuracy score."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uapgen.errors import UsageError
from uapgen.longtail.metrics import (
    AUTHORS_SMOOTHING,
    class_counts,
    classification_accuracy_score,
    draw_histogram,
    kl_to_uniform,
    ms_ssim,
    sampling_floor,
    scales_for,
    within_classes,
)
from uapgen.longtail.metrics.score import Classifier
from uapgen.runtime import rng


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_kl_is_zero_for_even_counts_and_log_k_for_one_class(k: int) -> None:
    one = torch.zeros(k, dtype=torch.int64)
    one[k // 2] = 7
    assert kl_to_uniform(torch.full((k,), 5)) == pytest.approx(0, abs=1e-12)
    assert kl_to_uniform(one) == pytest.approx(math.log(k), rel=1e-12)


def test_kl_by_hand_and_the_authors_form() -> None:
    counts = torch.tensor([3, 1])
    assert kl_to_uniform(counts) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-12)
    e = AUTHORS_SMOOTHING
    smoothed = sum((p + e) * math.log((p + e) / (0.1 + e)) for p in [1.0] + 9 * [0.0])
    assert kl_to_uniform(torch.tensor([4] + 9 * [0]), e) == pytest.approx(smoothed, rel=1e-12)
    assert smoothed < math.log(10)


def test_even_labels_show_the_sampling_floor_on_average() -> None:
    k, n = 10, 2000
    labels = torch.randint(0, k, (300, n), generator=rng(0, "labels"))
    mean = sum(kl_to_uniform(class_counts(row, k)) for row in labels) / len(labels)
    assert mean == pytest.approx(sampling_floor(k, n), rel=0.1)  # chi-squared: 2.7% standard error over 300 draws


def test_counts_keep_absent_classes_and_refuse_unknown_ones() -> None:
    assert class_counts(torch.tensor([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]
    with pytest.raises(UsageError, match=r"labels 0\.\.4 for 4 classes"):
        class_counts(torch.tensor([0, 4]), 4)
    with pytest.raises(UsageError, match="not all zero"):
        kl_to_uniform(torch.zeros(3))


def test_the_histogram_is_a_picture_of_the_same_bytes(tmp_path: Path) -> None:
    counts = {"plain": torch.tensor([9, 1, 0]), "balanced": torch.tensor([3, 4, 3])}
    for name in ("a.png", "b.png"):
        draw_histogram(counts, tmp_path / name, class_names=["cat", "dog", "owl"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UsageError, match=r"\[2, 3\]"):
        draw_histogram(counts | {"other": torch.ones(2)}, tmp_path / "c.png")


def pictures(n: int, side: int, seed: int) -> Tensor:
    return torch.rand(n, 3, side, side, generator=rng(seed, "pictures"), dtype=torch.float64)


def literal_ms_ssim(x: Tensor, y: Tensor, exponents: list[float]) -> float:
    """Wang et al., one channel (H,W), window by window."""
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    result = 1.0
    for scale, exponent in enumerate(exponents):
        terms = []
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                cov = (window * (a - mean_a) * (b - mean_b)).sum()
                term = (2 * cov + 0.03**2) / (var_a + var_b + 0.03**2)
                if scale == len(exponents) - 1:
                    term = term * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
                terms.append(term)
        result *= float(sum(terms) / len(terms)) ** exponent
        x, y = (p.unfold(0, 2, 2).unfold(1, 2, 2).mean((2, 3)) for p in (x, y))
    return result


def test_ms_ssim_is_the_literal_one_at_32_pixels() -> None:
    x = pictures(2, 32, 0)
    y = (0.7 * x + 0.3 * pictures(2, 32, 1)).clamp(0, 1)
    exponents = [0.0448 / (0.0448 + 0.2856), 0.2856 / (0.0448 + 0.2856)]
    for found, a, b in zip(ms_ssim(x, y), x, y, strict=True):
        literal = sum(literal_ms_ssim(p, q, exponents) for p, q in zip(a, b, strict=True)) / 3
        assert float(found) == pytest.approx(literal, rel=1e-9)


def test_one_scale_is_kornias_ssim_without_padding() -> None:
    from kornia.metrics import ssim

    x, y = pictures(2, 24, 0), pictures(2, 24, 0).roll(1, 3)
    theirs = ssim(x, y, window_size=11, padding="valid").mean((2, 3)).clamp_min(0).mean(1)
    torch.testing.assert_close(ms_ssim(x, y, scales=1), theirs, rtol=1e-6, atol=1e-8)


def test_scales_are_those_that_hold_the_window() -> None:
    assert [scales_for(side, side) for side in (11, 21, 28, 32, 64, 128, 176, 299)] == [1, 1, 2, 2, 3, 4, 5, 5]
    with pytest.raises(UsageError, match="8 x 8"):
        scales_for(8, 8)


def test_ms_ssim_of_equal_and_of_opposite_images() -> None:
    x = pictures(3, 32, 0).float()
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(3))
    assert ms_ssim(x, 1 - x).abs().max() < 0.05


def test_a_collapsed_class_shows_and_a_lone_image_makes_no_pair() -> None:
    images = (255 * pictures(21, 32, 0)).byte()
    images[:10] = images[0]
    labels = torch.tensor([0] * 10 + [1] * 10 + [2])
    found = within_classes(images, labels, 4, rng(0), pairs=30, batch=7)
    assert found.per_class[0] == pytest.approx(1, abs=1e-5) and found.per_class[1] < 0.5
    assert found.per_class[2:].isnan().all()
    assert found.pairs == 60 and found.scales == 2
    assert found.mean == pytest.approx(float(found.per_class[:2].mean()))
    with pytest.raises(UsageError, match="two images"):
        within_classes(images[:2], torch.tensor([0, 1]), 2, rng(0))


def coloured(labels: Tensor) -> Tensor:
    """Class k is an image of grey level k/10."""
    return (labels.view(-1, 1, 1, 1) / 10).expand(-1, 3, 8, 8)


def nearest_level(images: Tensor, labels: Tensor) -> Classifier:
    """A classifier that knows the mean level of each class that it was shown."""
    levels = {int(k): images[labels == k].float().mean() for k in labels.unique()}

    def classify(x: Tensor) -> Tensor:
        known = torch.full((len(x), 10), -torch.inf)
        for label, level in levels.items():
            known[:, label] = -(x.mean((1, 2, 3)) - level).abs()
        return known

    return classify


def test_cas_counts_what_a_classifier_of_samples_gets_right() -> None:
    test_labels = torch.arange(4).repeat_interleave(5)
    sample_labels = torch.tensor([0, 0, 1, 2])  # class 3 was never made: its nearest level is class 2's
    found = classification_accuracy_score(
        nearest_level, coloured(sample_labels), sample_labels, coloured(test_labels), test_labels, 5, batch_size=3
    )
    assert (found.top1.count, found.top1.n) == (15, 20)
    assert [rate.value for rate in found.per_class] == [1, 1, 1, 0, None]
    assert found.balanced == 0.75
    assert found.trained_on == [2, 1, 1, 0, 0]


def test_cas_refuses_labels_that_do_not_belong() -> None:
    x, labels = coloured(torch.arange(3)), torch.arange(3)
    with pytest.raises(UsageError, match="3 samples with 2 labels"):
        classification_accuracy_score(nearest_level, x, labels[:2], x, labels, 3)
    with pytest.raises(UsageError, match="one of the sets is empty"):
        classification_accuracy_score(nearest_level, x[:0], labels[:0], x, labels, 3)
    with pytest.raises(UsageError, match="for 2 classes"):
        classification_accuracy_score(nearest_level, x, labels, x, labels, 2)
