"""The layer methods: losses by hand, steps and schedules against references, and every one on a transformer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import SEED, TINY
from uapgen.attacks import Crafting, craft, find_method
from uapgen.attacks.core.curricula import CurriculumPrior, RangePrior, Schedule, shown
from uapgen.attacks.core.layerwise import background, first, halving_step
from uapgen.attacks.core.steps import HalvingStep
from uapgen.attacks.fff import product_of_means
from uapgen.attacks.pd_ua import (
    MomentumStep,
    collapsed,
    dropped_probe,
    gram,
    laplacian_normalised,
    laplacian_pyramid,
    log_uncertainty,
)
from uapgen.attacks.pnm_uap import share_at
from uapgen.attacks.trm_uap import truncated_ratio
from uapgen.errors import UsageError
from uapgen.proxies import JigsawPrior
from uapgen.victims import Preprocessing, Victim

EPS = 10 / 255
METHODS = ["fff", "gd-uap", "trm-uap", "pnm-uap", "psp-uap", "pd-ua"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Grey:
    """Grey images, counted."""

    data_class = "proxy"
    served = 0

    def describe(self) -> dict[str, Any]:
        return {"source": "grey"}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        self.served += n
        return torch.full((n, 3, 32, 32), 0.5)


def one_filter() -> tuple[Victim, Tensor]:
    """A victim whose only convolution is one filter over the whole frame: the energy of delta alone is (w.delta)^2."""
    w = torch.randn(1, 3, 8, 8, generator=rng(5))
    conv = nn.Conv2d(3, 1, 8, bias=False)
    conv.weight.data.copy_(w)
    module = nn.Sequential(conv, nn.Flatten(), nn.Linear(1, 2))
    pre = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0)
    return Victim(module, preprocessing=pre, device="cpu", precision="fp32"), w


@pytest.fixture
def exact_victim(tiny_module: nn.Module) -> Victim:
    """The tiny victim without bf16, for comparisons to many digits."""
    return Victim(tiny_module, name="tiny", preprocessing=TINY, device="cpu", precision="fp32")


def crafting(victim: Victim, **kwargs: Any) -> Crafting:
    return Crafting(victim, kwargs.pop("source", None), EPS, 0, 100, **kwargs)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("method", ["fff", "gd-uap"])
def test_delta_alone_reaches_the_filters_corner(method: str, normalise: bool) -> None:
    victim, w = one_filter()
    uap = craft(victim, method=method, eps=EPS, budget=300, lr=0.1, normalise=normalise, rectify=False)
    reached = (w[0] * uap.delta).sum().abs()
    assert reached >= 0.999 * EPS * w.abs().sum()
    assert uap.card["cost"] == {"image_gradients": 300, "image_forwards": 0}


@pytest.mark.parametrize("prior", ["gaussian", "jigsaw"])
@pytest.mark.parametrize("method", ["trm-uap", "pnm-uap"])
def test_positive_terms_go_along_the_filter(method: str, prior: str) -> None:
    victim, w = one_filter()
    uap = craft(victim, method=method, eps=EPS, budget=300, prior=prior)
    assert (w[0] * uap.delta).sum() >= 0.98 * EPS * w.abs().sum()


def test_truncated_ratio_by_hand() -> None:
    a, b = torch.tensor([[3.0, -4.0], [4.0, 0.0]]), torch.tensor([[-6.0, -8.0], [2.0, 0.0]])
    up = math.log(0.5 * 25) + math.log(0.5 * 4)
    down = math.log(0.5 * 4) + math.log(0.5 * 10)
    assert truncated_ratio([a, b], [a, b], 1.5).item() == pytest.approx(1.5 * down - up, rel=1e-5)
    assert truncated_ratio([a], [], 1.5).item() == pytest.approx(-math.log(0.5 * 25), rel=1e-5)
    silent = torch.zeros(1, 4, requires_grad=True)
    truncated_ratio([silent], [silent], 1.0).backward()
    assert silent.grad is not None
    assert silent.grad.isfinite().all()


def test_product_of_means_is_the_log_of_the_product() -> None:
    layers = [torch.tensor([[1.0, -3.0, 2.0]]), torch.tensor([[0.5, 0.5]])]
    assert product_of_means(layers, rectify=True).item() == pytest.approx(-math.log(1.0 * 0.5), rel=1e-5)
    assert product_of_means(layers, rectify=False).item() == pytest.approx(-math.log(2.0 * 0.5), rel=1e-5)


def test_the_first_layers() -> None:
    assert first(list("abcdefghij"), 0.7) == list("abcdefg")
    assert first(list("abc"), 0.1) == ["a"]
    assert first(list("abc"), 1.0) == list("abc")


def test_shown_and_background_reach_the_network_as_they_should(tiny_victim: Victim) -> None:
    seen: list[Tensor] = []
    tiny_victim.module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    delta = EPS * torch.randn(2, 3, 32, 32, generator=rng())
    for normalise, scale in ((True, 1 / 0.5), (False, 1.0)):
        tiny_victim(shown(tiny_victim, background(tiny_victim, normalise) + delta, normalise))
        assert torch.allclose(seen.pop(), delta * scale, atol=1e-6)
    tiny_victim(shown(tiny_victim, delta + 2, True))
    assert torch.equal(seen.pop(), torch.ones(2, 3, 32, 32))


def course(schedule: Schedule, budget: int) -> list[tuple[float, int]]:
    steps, spent = [], 0
    while spent < budget:
        steps.append(schedule.at(spent))
        spent += steps[-1][1]
    return steps


def test_a_published_budget_gives_the_published_course() -> None:
    cost = 1600 * 1 + 800 * 2 + 800 * 4 + 800 * 8
    schedule = Schedule.fit(cost, batch=1, doublings=(1600, 2400, 3200), iterations=4000)
    steps = course(schedule, cost)
    assert schedule.scale == 1
    assert [round(at) for at, _ in steps] == list(range(4000))
    assert [steps[i][1] for i in (0, 1599, 1600, 2399, 2400, 3199, 3200, 3999)] == [1, 1, 2, 2, 4, 4, 8, 8]
    longer = Schedule.fit(3 * cost, batch=1, doublings=(1600, 2400, 3200), iterations=4000)
    assert longer.at(cost + 8 * 100) == (pytest.approx(4100), 8)


@pytest.mark.parametrize(
    ("budget", "batch", "images"), [(5000, 1, 8), (50_000, 10, 80), (1800, 10, 20), (1000, 10, 10), (400, 10, 4)]
)
def test_a_smaller_budget_is_walked_in_the_same_shares(budget: int, batch: int, images: int) -> None:
    schedule = Schedule.fit(budget, batch=batch, doublings=(1600, 2400, 3200), iterations=4000)
    steps = course(schedule, budget)
    assert max(n for _, n in steps) == images
    assert len(steps) >= 95
    assert schedule.scale == pytest.approx(len(steps) / 4000, rel=0.05)
    assert 3800 < steps[-1][0] <= 4000
    assert schedule.scaled(400) == pytest.approx(len(steps) / 10, abs=1.5)


def test_halving_step_is_projected_adam_until_it_rests() -> None:
    reference = torch.zeros(1, 3, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([reference], lr=0.01)
    step, ours = HalvingStep(0.01, 0.05), torch.zeros(1, 3, 4, 4)
    for i in range(4):
        reference.grad = torch.randn(1, 3, 4, 4, generator=rng(i))
        optimizer.step()
        ours = step(ours, reference.grad)
    assert torch.allclose(ours, reference.detach(), atol=1e-6)
    assert step.halvings == 0


def test_a_pattern_that_rests_at_the_bound_goes_on_from_its_half() -> None:
    part = 0.5
    step, delta = HalvingStep(0.1, 0.03, lambda: part), torch.zeros(1, 3, 4, 4)
    gradient = torch.ones_like(delta)
    delta = step(delta, gradient)
    assert torch.equal(step.start(delta), delta)  # saturation went from 0 to 1
    delta = step(delta, gradient)
    assert torch.equal(delta, torch.full_like(delta, -0.03))
    assert torch.equal(step.start(delta), 0.5 * delta)
    assert step.halvings == 1
    resumed = HalvingStep(0.1, 0.03, lambda: part)
    resumed.load({key: value.clone() for key, value in step.tensors().items()})
    small = -1e-3 * gradient  # the moments still point the other way
    assert torch.equal(resumed(delta, small), step(delta, small))
    part = 1.0
    delta = step(step(delta, gradient), gradient)
    assert torch.equal(step.start(delta), delta)


def test_the_end_of_a_run_is_not_halved(tiny_victim: Victim) -> None:
    run = crafting(tiny_victim)
    step = halving_step(run, 0.1, None)
    assert step.factor() == 0.5
    run.cost.image_gradients = 91
    assert step.factor() == 1.0


def test_gaussian_priors_grow_and_are_centred(tiny_victim: Victim) -> None:
    priors = CurriculumPrior(crafting(tiny_victim), "gaussian", normalise=False)
    early, late = (priors.batch(60, at, rng()) for at in (0, 4000))
    assert abs(early.mean()) < 0.01
    assert late.std() > 3 * early.std()
    spread = early.std((0, 2, 3))
    assert spread[0] > spread[1] > spread[2]  # the widest channel is the red one
    assert abs(CurriculumPrior(crafting(tiny_victim), "gaussian", True).batch(60, 0, rng()).mean() - 0.5) < 0.01


def test_jigsaws_grow_and_the_users_images_replace_them(tiny_victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cuts = crafting(tiny_victim), []
    priors = CurriculumPrior(run, "jigsaw", normalise=False)
    monkeypatch.setattr(priors.jigsaw, "batch", lambda n, generator, frequency: cuts.append(frequency))
    for at in (0, 599, 600, 4199, 4200, 9000):
        priors.batch(1, at, rng())
    assert cuts == [1, 1, 2, 7, 8, 8]
    assert run.record.sources[0].describe()["source"] == "jigsaw"
    run = crafting(tiny_victim, source=Grey())
    assert torch.equal(CurriculumPrior(run, "jigsaw", False).batch(2, 0, rng()), torch.full((2, 3, 32, 32), 0.5))
    assert run.record.sources == [run.source]


def test_range_prior_fills_the_range_of_pixels(tiny_victim: Victim) -> None:
    priors = RangePrior(crafting(tiny_victim))
    assert priors.canvas.shape == (3, 96, 96)
    assert priors.canvas.std().item() == pytest.approx(127.5 / 3.29 / 255, rel=0.02)
    images = priors.batch(8, rng())
    assert images.shape == (8, 3, 32, 32)
    assert images.min() >= 0
    assert images.max() <= 1
    assert not torch.equal(images[0], images[1])


def test_gd_uap_reads_the_prior_that_it_is_told(tiny_victim: Victim) -> None:
    images = Grey()
    uap = craft(tiny_victim, method="gd-uap", source=images, prior="data", budget=200)
    assert (uap.data_class, images.served) == ("proxy", 200)
    noise = craft(tiny_victim, method="gd-uap", prior="range", budget=200)
    assert noise.card["data"]["sources"][0]["source"] == "range-prior"
    assert noise.data_class == "none"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"method": "gd-uap", "prior": "data"}, "give --proxy or --train-data"),
        ({"method": "gd-uap", "prior": "comics"}, "expected none, range or data"),
        ({"method": "gd-uap", "prior": "range", "source": Grey()}, "use prior=data"),
        ({"method": "fff", "source": Grey()}, "reads no image"),
        ({"method": "pd-ua", "source": Grey()}, "reads no image"),
        ({"method": "trm-uap", "positive": 0.0}, "above 0 and at most 1"),
        ({"method": "pnm-uap", "every": 0}, "every=0 is out of range; expected a whole number, 1 to"),
        ({"method": "pnm-uap", "low": 0.8}, "low <= high; got low=0.8, high=0.7"),
        ({"method": "pnm-uap", "outputs": "relu"}, "expected conv or norm"),
        ({"method": "psp-uap", "crops": 0}, "crops=0 is out of range; expected a whole number, 1 to"),
        ({"method": "trm-uap", "prior": "comics"}, "expected jigsaw or gaussian"),
        ({"method": "pd-ua", "dropout": 1.0}, "above 0 and below 1"),
    ],
)
def test_bad_settings(kwargs: dict[str, Any], message: str, tiny_victim: Victim) -> None:
    with pytest.raises(UsageError, match=message):
        craft(tiny_victim, budget=20, **kwargs)


@pytest.mark.parametrize("method", METHODS)
def test_a_victim_without_layers_is_refused(method: str) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    victim = Victim(module, preprocessing=Preprocessing(input_size=(3, 8, 8)), device="cpu")
    with pytest.raises(UsageError, match="no layers"):
        craft(victim, method=method, budget=20)


def test_the_share_of_layers_grows() -> None:
    assert [round(share_at(at, 0.1, 0.7, 100), 2) for at in (0, 99, 100, 1199, 1200, 9999)] == [
        0.1, 0.1, 0.15, 0.65, 0.7, 0.7,
    ]  # fmt: skip


def psp_reference(net: nn.Module, samples: Tensor, delta: Tensor, temperature: float, layers: int) -> float:
    """-sum_l log(1/2 sum_i ||w_i a_li||^2), w_i = KL_i^-1/2, from numpy on what hooks saw."""
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)][:layers]
    outputs: list[np.ndarray] = []
    handles = [m.register_forward_hook(lambda m, i, o: outputs.append(o.numpy())) for m in convs]
    with torch.no_grad():
        moved = torch.softmax(net(samples + delta) / temperature, 1).numpy()
        seen = outputs[:]
        clean = torch.softmax(net(samples) / temperature, 1).numpy()
    for handle in handles:
        handle.remove()
    w = 1 / np.sqrt(temperature**2 * (clean * np.log(clean / moved)).sum(1))
    return -float(np.mean([np.log(0.5 * np.square(w.reshape(-1, 1, 1, 1) * a).sum()) for a in seen]))


def test_psp_loss_is_the_papers(exact_victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first logged loss, from the same crops, against a reference; weights are defined up to a factor.

    The pattern is strong and the answers are soft, so that no KL is lost to rounding: they agree to 5e-5.
    """
    eps, soft = 64 / 255, 4.0
    from uapgen.attacks import psp_uap as psp

    held: dict[str, Tensor] = {}
    crop = psp.random_resized_crops

    def keep(images: Tensor, n: int, generator: torch.Generator) -> Tensor:
        held.setdefault("samples", crop(images, n, generator))
        return held["samples"]

    real = psp.stubborn_weights

    def keep_weights(*args: Any) -> Tensor:
        return held.setdefault("weights", real(*args))

    monkeypatch.setattr(psp, "random_resized_crops", keep)
    monkeypatch.setattr(psp, "stubborn_weights", keep_weights)
    losses: list[float] = []
    craft(
        exact_victim, method="psp-uap", eps=eps, budget=1000, share=0.75, temperature=soft, transforms=False,
        callback=lambda stage, done, total, figures: losses.append(figures["loss"]),
    )  # fmt: skip
    from uapgen.attacks.core.steps import random_start
    from uapgen.runtime import rng as keyed

    delta = random_start((3, 32, 32), eps, keyed(0, "start"))
    reference = psp_reference(exact_victim.module, held["samples"], delta, soft, 3)
    with torch.no_grad():
        clean, moved = exact_victim.module(held["samples"]), exact_victim.module(held["samples"] + delta)
        before, after = torch.log_softmax(clean / soft, 1), torch.log_softmax(moved / soft, 1)
        kl = soft**2 * (before.exp() * (before - after)).sum(1)
    factor = math.log((1 / kl).mean())  # weights of mean 1 move the loss by a constant
    assert losses[0] == pytest.approx(reference + factor, rel=1e-3)


def test_clean_forwards_are_counted(tiny_victim: Victim) -> None:
    uap = craft(tiny_victim, method="psp-uap", budget=200)
    assert uap.card["cost"] == {"image_gradients": 200, "image_forwards": 200}
    assert uap.card["data"]["sources"][0]["prior"]["source"] == "jigsaw"
    plain = craft(tiny_victim, method="psp-uap", budget=200, reweight=False)
    assert plain.card["cost"] == {"image_gradients": 200, "image_forwards": 0}


def test_batches_end_with_the_budget(tiny_victim: Victim) -> None:
    for method in ("trm-uap", "psp-uap"):
        assert craft(tiny_victim, method=method, budget=203).card["cost"]["image_gradients"] == 203


@pytest.mark.parametrize("method", ["fff", "gd-uap", "trm-uap", "pnm-uap", "psp-uap"])
def test_stopping_is_the_users_choice(method: str) -> None:
    assert find_method(method).stops


def test_trm_uap_stops_after_five_looks_in_all(tiny_victim: Victim) -> None:
    looks: list[float] = []

    def look(stage: str, done: int, total: int, figures: dict[str, Any]) -> None:
        looks.extend([figures["stop_on_rate"]] if "stop_on_rate" in figures else [])

    images = Grey()
    uap = craft(tiny_victim, method="trm-uap", stop_on=images, budget=1000, callback=look)
    assert images.served == 1000
    if uap.card["method"]["stopped"] == "budget":
        assert len(looks) == 10  # every 400 of 4,000 published iterations
    else:
        better = [rate > max([-1.0, *looks[:i]]) for i, rate in enumerate(looks)]
        assert better.count(False) == 5
    assert uap.data_class == "proxy"


def test_uncertainty_is_the_variance_over_the_samples() -> None:
    a = torch.tensor([[[1.0, 2.0]], [[3.0, 2.0]]])
    b = torch.tensor([[0.0], [4.0]])
    assert log_uncertainty([a, b]).item() == pytest.approx((math.log(0.5) + math.log(2.0)) / 2, rel=1e-5)


def test_dropped_channels(exact_victim: Victim) -> None:
    names = exact_victim.layers()
    x = torch.rand(1, 3, 32, 32, generator=rng()).expand(40, -1, -1, -1)
    plain, kept = exact_victim.probe(x, layers=names), dropped_probe(exact_victim, x, names, 0.0, 1)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain.layers, kept.layers, strict=True))
    layers = dropped_probe(exact_victim, x, names, 0.25, 1).layers
    dead = (layers[0].flatten(2) == 0).all(2).float().mean().item()
    assert dead == pytest.approx(0.25, abs=0.07)  # 640 channels, four standard deviations
    alive = layers[0][layers[0] != 0]
    assert torch.allclose(alive, (plain.layers[0] / 0.75)[layers[0] != 0], rtol=1e-4)
    same = dropped_probe(exact_victim, x, names, 0.25, 1).logits
    assert torch.equal(same, dropped_probe(exact_victim, x, names, 0.25, 1).logits)
    assert not torch.equal(same, dropped_probe(exact_victim, x, names, 0.25, 2).logits)
    assert torch.allclose(exact_victim(x), plain.logits)  # no hook stays behind


@pytest.mark.parametrize("size", [32, 30, 8])
def test_a_pyramid_collapses_to_its_image(size: int) -> None:
    x = torch.randn(1, 3, size, size, generator=rng())
    bands = laplacian_pyramid(x, 4)
    assert [b.shape[-1] for b in bands] == [-(-size // 2**i) for i in range(len(bands))]
    assert torch.allclose(collapsed(bands), x, atol=1e-5)
    assert torch.allclose(laplacian_normalised(x, 1), x / x.square().mean().sqrt())


def test_normalised_gradients_are_coarser() -> None:
    noise = torch.randn(1, 3, 64, 64, generator=rng())

    def coarse(x: Tensor) -> float:
        power = torch.fft.fft2(x).abs().square()
        return (power[..., :8, :8].sum() / power.sum()).item()

    assert coarse(laplacian_normalised(noise, 4)) > 5 * coarse(noise)


def test_momentum_step_by_hand() -> None:
    step = MomentumStep(0.1, 0.5)
    delta = step(torch.zeros(2), torch.tensor([1.0, -3.0]))
    assert torch.allclose(delta, torch.tensor([-0.1, 0.1]))
    # m = 0.5 * (0.5, -1.5) + (-0.5, 1.5) = (-0.25, 0.75)
    assert torch.allclose(step(delta, torch.tensor([-1.0, 3.0])), torch.tensor([0.0, 0.0]), atol=1e-7)


def test_gram_matrices_of_maps_and_of_tokens() -> None:
    maps = torch.randn(1, 4, 3, 5, generator=rng())
    expected = torch.einsum("chw,dhw->cd", maps[0], maps[0]) / 15
    assert torch.allclose(gram(maps), expected, atol=1e-5)
    assert torch.allclose(gram(maps.flatten(2).transpose(1, 2)), expected, atol=1e-5)


@pytest.fixture(scope="module")
def transformer() -> Victim:
    import timm

    torch.manual_seed(SEED)
    module = timm.create_model("test_vit", pretrained=False, num_classes=10)
    return Victim(module, preprocessing=Preprocessing(input_size=(3, 160, 160)), device="cpu")


@pytest.mark.parametrize("method", METHODS)
def test_layer_methods_raise_the_blocks_of_a_transformer(method: str, transformer: Victim) -> None:
    losses: list[float] = []
    uap = craft(
        transformer, method=method, eps=EPS, budget=60,
        callback=lambda stage, done, total, figures: losses.append(figures.get("loss", math.nan)),
    )  # fmt: skip
    assert uap.delta.shape == (3, 160, 160)
    losses = [value for value in losses if not math.isnan(value)]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_cosine_uap_runs_without_data_on_jigsaws(tiny_victim: Victim) -> None:
    cosines: list[float] = []
    uap = craft(
        tiny_victim,
        method="cosine-uap",
        source=JigsawPrior(32),
        budget=640,
        callback=lambda stage, done, total, figures: cosines.append(figures["cosine"]),
    )
    assert uap.data_class == "none"
    assert sum(cosines[-5:]) < sum(cosines[:5])


def test_tiles_repeat(tiny_victim: Victim) -> None:
    delta = craft(tiny_victim, method="psp-uap", budget=60, tile=2).delta
    assert torch.equal(delta[:, :16, :16], delta[:, 16:, 16:])
