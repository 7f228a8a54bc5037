"""NAG, GAP, AAA and AT-UAP: their losses by hand, and class impressions by what the victim says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.test_registered import EPS, SMALL, NearGrey, Pictures, linear_victim
from tests.conftest import TINY, gratings, tiny_net
from uapgen.attacks import craft
from uapgen.attacks.at_uap import disagreement, steepest_each
from uapgen.attacks.core.generators import ResnetGenerator, Without, shrunk
from uapgen.attacks.core.impressions import ClassImpressions, ImpressionSettings, class_impressions
from uapgen.attacks.core.run import Crafting
from uapgen.attacks.gap import gap_loss, rescaled
from uapgen.attacks.nag import distance, fooling, layer_at
from uapgen.errors import UapgenError, UsageError
from uapgen.runtime import rng
from uapgen.victims import Preprocessing, Victim

METHODS = ["aaa", "at-uap", "gap", "nag"]


def test_nag_loss_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
    labels = torch.tensor([0, 1])
    p = logits.softmax(1)
    expected = -((1 - p[0, 0]).log() + (1 - p[1, 1]).log()) / 2
    assert fooling(logits, labels).item() == pytest.approx(expected.item(), rel=1e-5)
    assert fooling(logits, labels, target=2).item() == pytest.approx(-p[:, 2].log().mean().item(), rel=1e-5)
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)  # 1 - p underflows; its logarithm must not
    fooling(sure, torch.tensor([0])).backward()
    assert sure.grad is not None
    assert torch.allclose(sure.grad, torch.tensor([[1.0, -1.0]]))


def test_nag_distance_is_relative() -> None:
    a, b = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert distance(a, b).item() == pytest.approx((2 / 2 + 0) / 2)
    assert distance(100 * a, 100 * b).item() == pytest.approx(0.5)
    assert distance(a, -a).item() == pytest.approx(2)


class Grey64:
    data_class = "none"

    def describe(self) -> dict:
        return {"source": "grey"}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        return 0.5 + 0.01 * torch.randn(n, 3, 64, 64, generator=generator)


def test_nag_finds_a_fine_pattern_where_brightness_would_do_by_half() -> None:
    """A linear victim: the fooling loss falls by board.delta and, half as fast, by brightness."""
    row = torch.arange(64) // 4
    board = ((row.view(-1, 1) + row) % 2 * 2.0 - 1).expand(3, 64, 64)
    layer = nn.Conv2d(3, 2, 64)
    with torch.no_grad():
        w = (board + 0.5) / board.numel()
        layer.weight.copy_(400 * torch.stack([-w, w]))
        layer.bias.copy_(400 * torch.tensor([0.3, -0.3]))  # grey is class 0, so surely that the loss stays linear
    pre = Preprocessing(input_size=(3, 64, 64), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
    victim = Victim(nn.Sequential(layer, nn.Flatten()), preprocessing=pre, device="cpu")
    params = {"batch": 8, "min_steps": 1, "candidates": 2, "held_out": 8, "diversity": 0.0}
    uap = craft(victim, method="nag", source=Grey64(), budget=480, **params)
    assert (board * uap.delta).mean() > 0.8 * EPS
    assert uap.delta.mean().abs() < 0.3 * EPS


def test_gap_rescaling_meets_the_bound() -> None:
    raw = torch.randn(1, 3, 8, 8, generator=rng(0, "raw"))
    raw[0, 2] *= 1e-3  # already inside
    delta = rescaled(raw, EPS)
    assert delta[0, :2].abs().amax((1, 2)).tolist() == pytest.approx([EPS, EPS], rel=1e-6)
    assert torch.equal(delta[0, 2], raw[0, 2])
    assert torch.allclose(delta[0, 0] / delta[0, 0, 0, 0], raw[0, 0] / raw[0, 0, 0, 0], rtol=1e-4)  # scaled, not cut


def test_gap_loss_by_hand() -> None:
    clean = torch.tensor([[3.0, 1.0, 0.0]])
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    ce = -logits.log_softmax(1)[0]
    assert gap_loss(logits, clean).item() == pytest.approx(ce[2].log().item(), rel=1e-5)
    assert gap_loss(logits, clean, least_likely=False).item() == pytest.approx(-ce[0].log().item(), rel=1e-5)
    assert gap_loss(logits, clean, target=1).item() == pytest.approx(ce[1].log().item(), rel=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (30, 45)])
def test_resnet_generator_keeps_the_size(size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size, generator=rng(0, "x"))
    with torch.no_grad():
        first, again, other = (ResnetGenerator(width=4, blocks=1, seed=s)(x) for s in (0, 0, 1))
    assert first.shape == x.shape
    assert first.abs().max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("rescale", [True, False])
def test_gap_fills_the_ball_only_by_rescaling(rescale: bool, tiny_victim: Victim) -> None:
    """The network as it was drawn, for at this rate it learns nothing: its output reaches beyond eps, and not to 1."""
    params = {**SMALL["gap"], "lr": 1e-6}
    uap = craft(tiny_victim, method="gap", source=Pictures(), budget=100, rescale=rescale, **params)
    filled = uap.delta.abs().amax((1, 2)) / EPS
    if rescale:
        assert torch.allclose(filled, torch.ones(3), atol=1e-5)
    else:
        assert filled.max() < 0.9  # three channels reach 0.83, 0.69 and 0.83


def test_impressions_are_what_the_victim_says(tiny_victim: Victim) -> None:
    run = Crafting(tiny_victim, None, EPS, 0, 800)
    made = class_impressions(run, ImpressionSettings(slots=8, most=20), images=800)
    assert len(made) >= 20
    assert run.cost.image_gradients <= 800 + 8
    picture = made.images.float() / 255
    confidence = tiny_victim(picture).softmax(1).gather(1, made.classes.unsqueeze(1)).squeeze(1)
    assert torch.allclose(confidence, made.confidences, atol=1e-4)
    assert confidence.min() >= 0.55 - 1e-4
    assert confidence.max() <= 0.99 + 1e-4
    assert len(made.classes.unique()) > 7  # all ten are tried before one comes again
    assert made.data_class == "none"
    assert made.describe()["n"] == len(made)
    drawn = made.batch(3, rng(0, "draw"))
    assert all((drawn[i] == picture).flatten(1).all(1).any() for i in range(3))


def test_impressions_fall_back_on_images_on_their_way(tiny_victim: Victim) -> None:
    run = Crafting(tiny_victim, None, EPS, 0, 8)
    made = class_impressions(run, ImpressionSettings(slots=8, lr=1e-4), images=8)
    assert len(made) == 2  # 8 image-gradients are too few for more than two slots
    assert run.notes["impressions"]["made"] == 0


def test_impressions_start_from_a_source_and_take_its_data_class(tiny_victim: Victim) -> None:
    run = Crafting(tiny_victim, None, EPS, 0, 8)
    made = class_impressions(run, ImpressionSettings(slots=2, lr=0.0), images=4, start=Pictures())
    assert made.data_class == "driven"
    assert made.describe()["start"] == {"source": "gratings"}
    assert (made.images.float() / 255).std() < 0.2  # gratings, not grey


def test_split_impressions_share_nothing() -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 8, 8)
    held, rest = ClassImpressions(images, torch.arange(5), torch.rand(5)).split(2)
    assert held.images[:, 0, 0, 0].tolist() == [0, 1]
    assert rest.images[:, 0, 0, 0].tolist() == [2, 3, 4]
    with pytest.raises(UapgenError, match="cannot be split at 3"):
        rest.split(3)


class TwoPictures:
    data_class = "proxy"

    def describe(self) -> dict:
        return {"source": "two"}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        grey = torch.tensor([64.0, 128.0]) / 255
        return grey[torch.randint(0, 2, (n,), generator=generator)].view(n, 1, 1, 1).expand(n, 3, 8, 8)


def test_images_held_back_are_not_trained_on() -> None:
    light = torch.full((1, 3, 8, 8), 128 / 255)
    drawn = Without(TwoPictures(), light).batch(50, rng(0, "draw"))
    assert torch.equal(drawn, torch.full((50, 3, 8, 8), 64 / 255))
    both = torch.cat([light, light / 2])
    with pytest.raises(UapgenError, match="smaller held_out"):
        Without(TwoPictures(), both).batch(4, rng(0, "draw"))


def test_batches_shrink_to_leave_steps() -> None:
    assert [shrunk(32, images, 300) for images in (100_000, 6_000, 5_000, 100)] == [32, 20, 16, 4]


def test_layers_by_depth(tiny_victim: Victim) -> None:
    names = tiny_victim.layers()
    assert [layer_at(tiny_victim, share) for share in (-1, 0, 1)] == [names[0], names[0], names[-1]]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    plain = Victim(net, name="linear", preprocessing=Preprocessing((3, 8, 8), crop_pct=1.0), device="cpu")
    with pytest.raises(UsageError, match="linear has no layers before its classifier"):
        layer_at(plain, 0.5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("target", [None, 1])
def test_at_uap_reaches_the_linear_optimum(norm: str, target: int | None) -> None:
    victim, w = linear_victim()
    eps = EPS if norm == "linf" else 0.3
    best = -eps * w.sign() if norm == "linf" else -eps * w / w.norm()
    uap = craft(victim, method="at-uap", source=NearGrey(), eps=eps, norm=norm, budget=3000, lr=0.005, target=target)
    assert (w * uap.delta).sum() <= 0.99 * (w * best).sum()


def test_at_uap_counts_both_passes(tiny_victim: Victim) -> None:
    for inner, forwards in ((0, 400), (1, 400), (3, 200)):
        uap = craft(tiny_victim, method="at-uap", budget=400, inner_steps=inner, batch=4)
        assert uap.card["cost"] == {"image_gradients": 400, "image_forwards": forwards}


def test_at_uaps_regulariser_and_inner_step() -> None:
    same = torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    assert disagreement(same).item() == pytest.approx(0, abs=1e-6)
    assert disagreement(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).item() == pytest.approx(0.5)
    gradient = torch.tensor([[3.0, -4.0], [0.0, 2.0]]).view(2, 1, 1, 2)
    assert torch.equal(steepest_each(gradient, "linf"), gradient.sign())
    assert steepest_each(gradient, "l2").flatten(1).norm(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("method", METHODS)
def test_targeted_runs_reach_their_class(method: str, tiny_victim: Victim) -> None:
    pictures, _ = gratings(200, seed=77)
    params = SMALL.get(method, {})
    if method in ("nag", "aaa"):
        params = {**params, "lr": 5e-3}
    source = None if method == "aaa" else Pictures()
    uap = craft(tiny_victim, method=method, source=source, eps=32 / 255, target=3, budget=600, **params)
    before, after = ((tiny_victim(x).argmax(1) == 3).float().mean() for x in (pictures, uap.apply(pictures)))
    assert after > before + 0.2
    assert uap.card["method"]["params"]["target"] == 3


@pytest.mark.parametrize("method", METHODS)
def test_tiled_patterns_and_marks(method: str, tmp_path: Path) -> None:
    victim = Victim(tiny_net(4, 2), preprocessing=TINY, device="cpu")
    source = None if method in ("aaa", "at-uap") else Pictures()
    kwargs = {"method": method, "source": source, "folder": tmp_path, **SMALL.get(method, {})}
    uap = craft(victim, budget=96, tile=2, marks=(60, 90), **kwargs)
    assert torch.allclose(uap.delta[:, :16, :16], uap.delta[:, 16:, 16:], atol=1e-6)
    assert sorted(file.name for file in (tmp_path / "marks").iterdir()) == ["at-60.safetensors", "at-90.safetensors"]
