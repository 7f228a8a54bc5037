"""Algorithm 1 in closed form, its invariants, its degenerate cases, and that its weights decide what is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from uapgen.errors import UsageError
from uapgen.gan import SNDCGenerator
from uapgen.longtail import LabelledImages
from uapgen.longtail.gan_recipe import GanRecipe
from uapgen.longtail.synthetic import METHODS, Source, distance_sums, drawn_by, ensemble, sample_weights
from uapgen.longtail.synthetic.ensemble import Method, relative, transformed
from uapgen.victims import Victim


def cloud(n: int, k: int, seed: int, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator) + shift, torch.randint(k, (n,), generator=generator)


def test_distances_are_sums_over_all_generated_points_whatever_the_chunk() -> None:
    real, fake = cloud(23, 1, 0)[0].double(), cloud(17, 1, 1)[0].double()
    expected = torch.tensor([sum(float((r - g).square().sum().sqrt()) for g in fake) for r in real]).double()
    for chunk in (1, 5, 100):
        torch.testing.assert_close(distance_sums(real, fake, chunk=chunk), expected, rtol=1e-6, atol=1e-6)


def test_normalised_distances_by_hand() -> None:
    """Generated at 0; real at 1, 2, 5: d = 1, 2, 5, w = (d - 1) / 5."""
    real, fake = torch.tensor([[1.0], [2.0], [5.0]]), torch.zeros(1, 1)
    w = relative(distance_sums(real, fake))
    torch.testing.assert_close(w, torch.tensor([0.0, 0.2, 0.8]).double())
    mu, sigma = 1 / 3, ((1 / 9 + 2 / 15 * 2 / 15 + 7 / 15 * 7 / 15) / 3) ** 0.5
    torch.testing.assert_close(transformed(w, "A_mu"), torch.tensor([0.0, 0.0, 0.8]).double())
    torch.testing.assert_close(transformed(w, "C"), w)
    torch.testing.assert_close(transformed(w, "B"), 1 / (1 + torch.exp(-2 * (w - mu) / sigma)), rtol=1e-6, atol=1e-6)
    labels = torch.zeros(3, dtype=torch.int64)
    drawn = sample_weights(real, labels, fake, labels[:1], 1, "C")
    torch.testing.assert_close(drawn, torch.tensor([0.0, 0.2, 0.8]).double())


def test_a_sigma_keeps_what_is_above_mu_minus_sigma() -> None:
    w = torch.tensor([0.0, 0.5, 0.5, 0.5, 0.5, 0.5]).double()  # mu 0.417, sigma 0.186: plus sigma would keep none
    assert (transformed(w, "A_sigma") > 0).tolist() == [False, True, True, True, True, True]
    spread = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).double()  # mu 0.5, sigma 0.283
    assert (transformed(spread, "A_sigma") > 0).tolist() == [False, True, True, True, True]
    assert (transformed(spread, "A_mu") > 0).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("method", METHODS)
def test_farthest_first_and_classes_even(method: Method) -> None:
    real, labels = cloud(60, 3, 2, shift=0.5)
    fake, fake_labels = cloud(40, 3, 3)
    weights = sample_weights(real, labels, fake, fake_labels, 3, method, chunk=7)
    assert weights.min() >= 0
    for k in range(3):
        mine, theirs = real[labels == k], fake[fake_labels == k]
        assert weights[labels == k].sum().item() == pytest.approx(1 / 3)
        assert weights[labels == k].argmax() == torch.cdist(mine, theirs).sum(1).argmax()


def test_a_sigma_keeps_a_superset_of_a_mu() -> None:
    real, labels = cloud(80, 2, 4)
    fake, fake_labels = cloud(50, 2, 5, shift=1.0)
    few, many = (sample_weights(real, labels, fake, fake_labels, 2, m) > 0 for m in ("A_mu", "A_sigma"))
    assert bool((many | ~few).all()) and int(many.sum()) > int(few.sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", [0.0, 3.0])
def test_a_class_without_a_direction_is_drawn_evenly(method: Method, at: float) -> None:
    """All distances equal (sigma 0), and all of them zero (d_max 0)."""
    real, labels = torch.full((4, 2), at), torch.zeros(4, dtype=torch.int64)
    weights = sample_weights(real, labels, torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 1, method)
    torch.testing.assert_close(weights, torch.full((4,), 0.25).double())


@pytest.mark.parametrize("method", METHODS)
def test_one_image_in_a_class(method: Method) -> None:
    real, labels = torch.tensor([[1.0, 0.0], [4.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1, 1])
    weights = sample_weights(real, labels, torch.zeros(2, 2), torch.tensor([0, 1]), 2, method)
    assert weights[0].item() == pytest.approx(0.5) and weights[1:].sum().item() == pytest.approx(0.5)


def test_what_does_not_fit_is_refused() -> None:
    real, labels = cloud(6, 1, 0)
    with pytest.raises(UsageError, match="expected A_mu, A_sigma, B, C"):
        sample_weights(real, labels, real, labels, 1, "D")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="class 1 has no real image"):
        sample_weights(real, labels, real, labels, 2, "C")
    with pytest.raises(UsageError, match="class 0 has no generated image"):
        sample_weights(real, labels, real, labels + 1, 1, "C")
    with pytest.raises(UsageError, match="rows of one length"):
        sample_weights(real, labels, real[:, :1], labels, 1, "C")


def test_weights_decide_what_a_gan_is_shown() -> None:
    images = torch.arange(4).view(4, 1, 1, 1).expand(4, 3, 2, 2).byte().contiguous()
    data = LabelledImages(images, torch.tensor([0, 0, 1, 1]), 2, "four")
    sample = drawn_by(data, torch.tensor([0.5, 0.0, 0.125, 0.375]))
    x, y = sample(4000, torch.Generator().manual_seed(0))
    which = (255 * x[:, 0, 0, 0]).round().long()
    counts = torch.bincount(which, minlength=4)
    assert counts[1] == 0 and torch.equal(y, data.labels[which])
    torch.testing.assert_close(counts / 4000, torch.tensor([0.5, 0.0, 0.125, 0.375]), atol=0.03, rtol=0)
    for wrong in (torch.ones(3), torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, 1.0])):
        with pytest.raises(UsageError, match="sampling weights for 4 images"):
            drawn_by(data, wrong)


def test_a_conditioned_gan_is_shown_what_all_before_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_victim: Victim
) -> None:
    images = torch.zeros(150, 3, 32, 32, dtype=torch.uint8)
    data = LabelledImages(images, torch.arange(150) % 10, 10, "black")
    made, sources = [SNDCGenerator(4, 2, num_classes=10, seed=seed) for seed in range(3)], []
    monkeypatch.setattr(ensemble, "_train", lambda *args: made[len(sources)])

    class Spy(Source):
        def __post_init__(self) -> None:
            super().__post_init__()
            sources.append(len(self.samples))

    monkeypatch.setattr(ensemble, "Source", Spy)
    settings = {"recipe": GanRecipe(labels="projection"), "phi": tiny_victim, "folder": tmp_path, "device": "cpu"}
    found = ensemble.train_ensemble(data, 3, "C", **settings)  # type: ignore[arg-type]
    assert sources == [1, 2] and len(found) == 3
