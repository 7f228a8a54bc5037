"""Defences against answers known beforehand, and what their draws may depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import gratings
from uapgen.attacks import craft
from uapgen.defences import EXAMPLES, filters, parse_defence, parse_defences
from uapgen.defences.filters import jpeg, smooth_jpeg
from uapgen.errors import UapgenError, UsageError
from uapgen.proxies import Procedural
from uapgen.runtime import rng
from uapgen.victims import Preprocessing, Victim

PICTURES = (gratings(6, seed=3)[0] * 255).round() / 255


def step(width: int = 16) -> torch.Tensor:
    """Dark left half, bright right half, (1,3,width,width)."""
    x = torch.full((1, 3, width, width), 0.2)
    x[..., width // 2 :] = 0.8
    return x


def test_bits_by_hand() -> None:
    x = torch.tensor([0.0, 0.16, 0.17, 0.5, 0.84, 1.0]).view(1, 1, 1, -1)
    torch.testing.assert_close(filters.reduce_bits(x, 1).flatten(), torch.tensor([0.0, 0, 0, 0, 1, 1]))
    thirds = torch.tensor([0.0, 0, 1 / 3, 2 / 3, 1, 1])
    torch.testing.assert_close(filters.reduce_bits(x, 2).flatten(), thirds)
    torch.testing.assert_close(filters.reduce_bits(PICTURES, 8), PICTURES)


def test_median_keeps_a_step_and_removes_a_dot() -> None:
    assert torch.equal(filters.median(step(), 3), step())
    dotted = step()
    dotted[..., 4, 4] = 1.0
    assert torch.equal(filters.median(dotted, 3), step())


def test_gauss_of_a_dot_is_a_gaussian_of_weight_one() -> None:
    x = torch.zeros(1, 3, 15, 15)
    x[..., 7, 7] = 1
    y = filters.gauss(x, 1.0)
    assert float(y[0, 0].sum()) == pytest.approx(1, abs=1e-5)
    assert float(y[0, 0, 7, 8] / y[0, 0, 7, 7]) == pytest.approx(torch.tensor(-0.5).exp().item(), rel=1e-4)


def test_bilateral_keeps_a_high_step_that_gauss_blurs() -> None:
    torch.testing.assert_close(filters.bilateral(step()), step(), rtol=0, atol=1e-3)
    assert float((filters.gauss(step(), 1.5) - step()).abs().max()) > 0.1


def test_total_variation_of_a_step_moves_both_sides_by_weight_over_length() -> None:
    # One edge between two plateaus of length 3: the minimiser shifts each by weight / 3 towards the other.
    x = step(6)
    found = filters.total_variation(x, 0.05, steps=400)
    expected = torch.where(x < 0.5, 0.2 + 0.05 / 3, 0.8 - 0.05 / 3)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    noisy = step(32) + 0.02 * torch.randn(1, 3, 32, 32, generator=rng(0))
    assert float((filters.total_variation(noisy) - step(32)).std()) < 0.01


def test_jpeg_of_best_quality_is_nearly_nothing_and_of_worst_is_not() -> None:
    grey = PICTURES.mean(1, keepdim=True).expand(-1, 3, -1, -1)  # no chroma to subsample
    assert float((jpeg(grey, 100) - grey).abs().mean()) < 1 / 255
    assert float((jpeg(grey, 10) - grey).abs().mean()) > 4 / 255
    twice = jpeg(PICTURES, 75) * 255
    torch.testing.assert_close(twice, twice.round(), rtol=0, atol=1e-4)


def test_smooth_jpeg_is_near_the_real_one_and_has_a_gradient() -> None:
    x = PICTURES.clone().requires_grad_()
    y = smooth_jpeg(x, 75)
    assert float((y.detach() - jpeg(PICTURES, 75)).abs().mean()) < 3 / 255
    y.square().sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert float(x.grad.abs().mean()) > 0


def test_shift_moves_whole_pixels_and_resize_pad_leaves_a_black_border() -> None:
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(1, 3, 32, 32) / 32
    moved = parse_defence("shift4")(ramp, [5], seed=0)
    by = ((moved - ramp) * 32)[0, 0, 0, 8:24]
    assert len(by.unique()) == 1
    assert abs(float(by[0])) in range(5)
    white = parse_defence("resize-pad")(torch.ones(8, 3, 32, 32), range(8), seed=0)
    inside = (white > 0.5).float().mean((1, 2, 3))
    assert bool((inside >= 0.8).all())
    assert len(inside.unique()) > 1


@pytest.mark.parametrize("name", [*EXAMPLES, "jpeg1", "gauss0.5"])
def test_every_defence_keeps_shape_and_range_and_ignores_the_batch(name: str) -> None:
    defence = parse_defence(name)
    whole = defence(PICTURES, range(10, 16), seed=3)
    assert whole.shape == PICTURES.shape
    assert 0 <= float(whole.min()) <= float(whole.max()) <= 1
    single = torch.cat([defence(image, [10 + i], seed=3) for i, image in enumerate(PICTURES.split(1))])
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-6)
    if defence.draws:
        assert not torch.equal(whole, defence(PICTURES, range(10, 16), seed=4))
        assert not torch.equal(whole, defence(PICTURES, range(16, 22), seed=3))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_defence_can_be_crafted_through(name: str) -> None:
    x = (PICTURES[:2] + 0.01).requires_grad_()
    y = parse_defence(name).crafted_through(x, rng(0))
    (gradient,) = torch.autograd.grad((y * torch.linspace(0, 1, 32)).sum(), x)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("jpg75", "did you mean 'jpeg75'"),
        ("jpeg", "did you mean 'jpeg75'"),
        ("jpeg101", "a quality from 1 to 100"),
        ("jpeg7.5", "a whole number"),
        ("bits9", "1 to 8 bits"),
        ("median4", "an odd number"),
        ("gauss0", "a sigma in pixels"),
        ("shift0", "1 pixel or more"),
        ("", "no defence ''; expected such as none, jpeg75"),
        ("nowhere:f", "no module 'nowhere'"),
        ("math:pi", "is a float; expected a function"),
        ("math:cosine", "has no 'cosine'"),
    ],
)
def test_what_is_no_defence_is_refused(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_defences(f"none,{word}")


def test_a_list_names_each_once() -> None:
    assert [d.name for d in parse_defences("jpeg75, none,jpeg75")] == ["jpeg75", "none"]


def test_a_filter_wider_than_the_image_says_so() -> None:
    with pytest.raises(UsageError, match=r"median15 reaches 7 pixels far, and the images are 4x4"):
        parse_defence("median15")(torch.zeros(1, 3, 4, 4), [0], 0)


def test_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "import torch",
        "def darker(x): return x / 2",
        "def noisy(x, generators): return torch.stack([torch.rand(x.shape[1:], generator=g) for g in generators])",
        "def grey(x): return x.mean(1)",
        "def bright(x): return x + 1",
        "def broken(x): return x / 0 * 0",
        "def failing(x): raise RuntimeError('no luck')",
    ]
    (tmp_path / "mydefence.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    x = torch.full((2, 3, 8, 8), 0.5)
    assert float(parse_defence("mydefence:darker")(x, [0, 1], 0).max()) == 0.25
    noisy = parse_defence("mydefence:noisy")
    assert torch.equal(noisy(x, [0, 1], 0)[1:], noisy(x[:1], [1], 0))
    for name, message in (
        ("grey", r"returned \(2, 8, 8\).*expected images \(2, 3, 8, 8\)"),
        ("bright", r"values from 1.5 to 1.5; expected \[0,1\]"),
        ("broken", "values from nan"),
        ("failing", "raised RuntimeError: no luck"),
    ):
        with pytest.raises(UapgenError, match=message):
            parse_defence(f"mydefence:{name}")(x, [0, 1], 0)


def fine_and_coarse_victim() -> Victim:
    """Two classes by a checkerboard, which a blur erases, and with half its weight by left against right."""
    row = torch.arange(32)
    board = (row.view(-1, 1) + row) % 2 * 2.0 - 1
    halves = torch.where(row < 16, 1.0, -1.0).expand(32, 32)
    w = (board + 0.5 * halves).expand(3, 32, 32).flatten() / 3072
    linear = nn.Linear(3072, 2)
    with torch.no_grad():
        linear.weight.copy_(400 * torch.stack([w, -w]))
        linear.bias.copy_(400 * 0.25 * 8 / 255 * torch.tensor([1.0, -1.0]))  # grey is class 0, by a quarter of eps
    plain = Preprocessing(input_size=(3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
    return Victim(nn.Sequential(nn.Flatten(), linear), preprocessing=plain, device="cpu", precision="fp32")


def test_crafting_through_a_defence_survives_it_and_the_card_says_so() -> None:
    """Without the defence the best pattern is the checkerboard; through it, what moves half as much and stays."""
    victim, behind = fine_and_coarse_victim(), parse_defence("gauss1")
    pictures = 0.5 + 0.01 * torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    class Pictures:
        data_class = "driven"

        def describe(self) -> dict[str, str]:
            return {"source": "near-grey"}

        def batch(self, n: int, generator: torch.Generator) -> torch.Tensor:
            return pictures[torch.randint(0, 64, (n,), generator=generator)]

    def fooled(**more: object) -> list[int]:
        """As the pictures are, and behind the defence."""
        uap = craft(victim, method="spgd", source=Pictures(), eps=8 / 255, budget=1024, **more)  # type: ignore[arg-type]
        assert uap.card["method"]["params"].get("through") == ([d.name for d in more["through"]] if more else None)  # type: ignore[attr-defined]
        x = uap.apply(pictures)
        return [int((victim(images).argmax(1) == 1).sum()) for images in (x, behind(x, range(64), 0))]

    assert fooled() == [64, 0]
    assert fooled(through=[behind])[1] == 64


def test_a_resumed_run_draws_the_transformations_of_the_uninterrupted_one(tiny_victim: Victim, tmp_path: Path) -> None:
    through = parse_defences("none,shift2,resize-pad,jpeg75")
    given = {"method": "cosine-uap", "source": Procedural((32, 32), "cpu"), "budget": 700, "through": through}
    whole = craft(tiny_victim, **given, folder=tmp_path / "whole")

    def interrupt(stage: str, done: int, total: int, figures: dict[str, object]) -> None:
        if done >= 600:  # a state is saved every 480 images
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        craft(tiny_victim, **given, folder=tmp_path / "cut", callback=interrupt)
    assert craft(tiny_victim, **given, folder=tmp_path / "cut").sha256 == whole.sha256
    assert tiny_victim.describe() == whole.card["victim"]
