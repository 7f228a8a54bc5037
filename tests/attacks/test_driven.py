"""Methods that learn from images, against closed forms, against foolbox, and against their own slow forms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.test_registered import EPS, SMALL, Killed, NearGrey, Pictures, linear_victim
from tests.conftest import SEED, TINY, gratings
from uapgen.attacks import Crafting, craft
from uapgen.attacks.core.losses import affordable, labels_of, predict
from uapgen.attacks.core.optimise import optimise
from uapgen.attacks.core.run import Snapshots
from uapgen.attacks.core.selection import StopOnImages
from uapgen.attacks.core.steps import SteepestStep, steepest
from uapgen.attacks.df_uap import bounded_lead
from uapgen.attacks.dm_uap import Twin
from uapgen.attacks.sv_uap import dual_power, layer_map, pull_back
from uapgen.attacks.uap import DeepFool, _add
from uapgen.errors import UsageError
from uapgen.perturbation.ball import project
from uapgen.runfolder import RunFolder
from uapgen.victims import Preprocessing, Victim

WIDE = 24 / 255


@pytest.fixture
def exact_victim(tiny_module: nn.Module) -> Victim:
    """In fp32, so that an image's logits do not depend on its neighbours in a batch beyond rounding."""
    return Victim(tiny_module, name="tiny", preprocessing=TINY, device="cpu", precision="fp32")


def crafting(victim: Victim, **kwargs: Any) -> Crafting:
    return Crafting(**{"victim": victim, "given": Pictures(), "eps": EPS, "seed": 0, "budget": 100_000, **kwargs})


def pictures(n: int, seed: int = 5) -> Tensor:
    return gratings(n, seed)[0]


# What a run draws and what it pays for


def test_labels_are_the_target_or_the_clean_prediction(exact_victim: Victim) -> None:
    images, run = pictures(9), crafting(exact_victim)
    assert torch.equal(labels_of(run, images), exact_victim(images).argmax(1))
    assert run.cost.image_forwards == 9
    aimed = crafting(exact_victim, target=4)
    assert labels_of(aimed, images).tolist() == [4] * 9
    assert aimed.cost.image_forwards == 0


def test_batches_shrink_to_what_the_budget_can_pay() -> None:
    assert [affordable(100, budget, 50) for budget in (10_000, 2_000, 20)] == [100, 40, 1]


@pytest.mark.parametrize("method", ["uap", "sgd-uap", "spgd", "df-uap", "fg-uap", "dm-uap"])
def test_every_backward_pass_is_counted(method: str, exact_victim: Victim) -> None:
    seen = 0

    def count(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        def backward(gradient: Tensor) -> None:
            nonlocal seen
            seen += len(gradient)

        if output.requires_grad:
            output.register_hook(backward)

    first = next(m for m in exact_victim.module.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(count)  # copied along with the module by dm-uap
    uap = craft(exact_victim, method=method, source=Pictures(), budget=300, **SMALL.get(method, {}))
    assert uap.card["cost"]["image_gradients"] == seen
    assert 250 <= seen <= 300 + 40


# Losses and steps


def test_bounded_lead_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 30.0, 1.0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    assert bounded_lead(logits, labels, 10.0, targeted=False).item() == (2 - 10) / 2
    assert bounded_lead(logits, labels, 10.0, targeted=True).item() == (-2 + 30) / 2
    bounded_lead(logits, labels, 10.0, targeted=False).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.5, -0.5, 0], [0, 0, 0]]
    logits.grad = None
    bounded_lead(logits, labels, 10.0, targeted=True).backward()
    assert logits.grad.tolist() == [[-0.5, 0, 0], [-0.5, 0, 0]]  # the runner-up is detached


@pytest.mark.parametrize("method", ["sga", "sgd-uap", "spgd", "df-uap", "cosine-uap", "dm-uap"])
def test_a_target_draws_images(method: str, tiny_victim: Victim) -> None:
    held_out, target = pictures(300, seed=77), 3
    uap = craft(
        tiny_victim, method=method, source=Pictures(), eps=WIDE, budget=1200, target=target, **SMALL.get(method, {})
    )
    floor = craft(tiny_victim, method="noise", eps=WIDE)
    rate, before = ((tiny_victim(u.apply(held_out)).argmax(1) == target).float().mean() for u in (uap, floor))
    assert rate > before + 0.4  # 0.9 or more were drawn, for every victim
    assert uap.card["method"]["params"]["target"] == target


@pytest.mark.parametrize("method", ["spgd", "sga"])
def test_an_unknown_loss_is_refused(tiny_victim: Victim, method: str) -> None:
    with pytest.raises(UsageError, match="loss=hinge is unknown; expected ce or logit"):
        craft(tiny_victim, method=method, source=Pictures(), loss="hinge")


# UAP


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_single_steps_add_up_to_foolboxes_deepfool(norm: str, exact_victim: Victim) -> None:
    from foolbox import PyTorchModel
    from foolbox.attacks import L2DeepFoolAttack, LinfDeepFoolAttack

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return exact_victim(x)

    images = 0.25 + 0.5 * pictures(12)  # away from the bounds: foolbox clips between steps, and so do single steps
    labels = exact_victim(images).argmax(1)
    kind = LinfDeepFoolAttack if norm == "linf" else L2DeepFoolAttack
    whole = kind(steps=10, candidates=10, overshoot=0.02).run(
        PyTorchModel(Module().eval(), bounds=(0, 1), device="cpu"), images, labels
    )
    run = crafting(exact_victim)
    moves = DeepFool(run, inner=norm, candidates=10, overshoot=0.02, steps=10).increments(images, labels)
    assert torch.allclose(images + moves, whole, atol=1e-5)
    assert (exact_victim(images + moves).argmax(1) != labels).all()
    assert run.cost.image_gradients % 9 == 0
    assert 12 * 9 <= run.cost.image_gradients < 12 * 9 * 10


def test_looking_ahead_changes_nothing(exact_victim: Victim) -> None:
    images, run = pictures(40), crafting(exact_victim, eps=0.2)
    labels = predict(run, images)
    pattern = craft(exact_victim, method="sgd-uap", source=Pictures(), eps=0.02, budget=400).delta
    moves = pattern + 0.005 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    slow, added = torch.zeros(1, 3, 32, 32), 0
    for x, y, move in zip(images.split(1), labels.split(1), moves.split(1), strict=True):
        if predict(run, (x + slow).clamp(0, 1)) == y:
            slow, added = project(slow + move, 0.2), added + 1
    assert 3 < added < 37
    assert torch.allclose(_add(run, torch.zeros(1, 3, 32, 32), images, labels, moves), slow, atol=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.004), ("l2", 0.05)])
def test_uap_reaches_the_linear_optimum(norm: str, eps: float) -> None:
    victim, w = linear_victim()
    uap = craft(
        victim, method="uap", source=NearGrey(), eps=eps, norm=norm, inner=norm, budget=100
    )  # too small to fool
    best = -eps * steepest(w, norm)
    assert (w * uap.delta).sum() <= 0.999 * (w * best).sum()


def test_uap_stops_when_enough_training_images_are_fooled() -> None:
    victim, _ = linear_victim()
    uap = craft(victim, method="uap", source=NearGrey(), eps=EPS, budget=5000)
    assert uap.card["method"]["stopped"] == "training images fooled"
    assert uap.card["cost"]["image_gradients"] < 1000
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        craft(victim, method="uap", source=NearGrey(), delta=1.5)


# SV-UAP


def jacobian(f: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """(B m, 3HW), column by column: what the products never form."""
    rows = [torch.func.jacrev(f)(x[None]).reshape(-1, x.numel()) for x in images]
    return torch.cat(rows)


@pytest.fixture
def small_victim() -> Victim:
    torch.manual_seed(2 + SEED)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)
    )
    pre = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.2,) * 3, crop_pct=1.0)
    return Victim(module, preprocessing=pre, device="cpu", precision="fp32")


def test_products_match_the_explicit_jacobian(small_victim: Victim) -> None:
    images, f = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0)), layer_map(small_victim, "2")
    v = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).sign()
    jac = jacobian(f, images)
    moved = jac @ v.flatten()
    expected = jac.T @ dual_power(moved / moved.abs().max(), 10)
    for chunk in (2, 7):
        towards, largest = pull_back(f, images, v, 10.0, chunk)
        assert largest == pytest.approx(moved.abs().max().item(), rel=1e-5)
        assert torch.allclose(towards.flatten(), expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_with_two_norms_it_is_the_singular_vector(small_victim: Victim) -> None:
    uap = craft(
        small_victim,
        method="sv-uap",
        source=_Fixed(),
        eps=0.1,
        norm="l2",
        q=2.0,
        layer="2",
        batch=6,
        budget=4000,
        tolerance=1e-9,
    )
    jac = jacobian(layer_map(small_victim, "2"), _Fixed().batch(6, torch.Generator()))
    top = torch.linalg.svd(jac)[2][0]
    assert torch.cosine_similarity(uap.delta.flatten(), top, 0).abs() > 0.9999
    assert uap.delta.norm().item() == pytest.approx(0.1, rel=1e-5)
    assert uap.card["method"]["stopped"] == "converged"


def test_its_corner_beats_other_corners(small_victim: Victim) -> None:
    uap = craft(small_victim, method="sv-uap", source=_Fixed(), eps=0.1, layer="2", batch=6, budget=2000)
    jac = jacobian(layer_map(small_victim, "2"), _Fixed().batch(6, torch.Generator()))
    others = torch.randn(2000, 192, generator=torch.Generator().manual_seed(0)).sign() * 0.1
    gains = (others @ jac.T).norm(p=10, dim=1)
    assert (jac @ uap.delta.flatten()).norm(p=10) > 1.5 * gains.max()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_sv_uap_reaches_the_linear_optimum(norm: str) -> None:
    victim, w = linear_victim()  # one map, one non-zero row: +-w, and the sign that changes predictions is -w
    uap = craft(victim, method="sv-uap", source=NearGrey(), eps=0.1, norm=norm, budget=500)
    assert torch.allclose(uap.delta, -0.1 * steepest(w, norm), atol=1e-5)


def test_sv_uap_takes_bf16_victims_and_refuses_unknown_layers(tiny_module: nn.Module) -> None:
    victim = Victim(tiny_module, preprocessing=TINY, device="cpu", precision="bf16")
    uap = craft(victim, method="sv-uap", source=Pictures(), layer="6", budget=200)
    assert uap.delta.abs().max().item() == pytest.approx(EPS, rel=1e-5)
    with pytest.raises(UsageError, match="no layer 'conv1'"):
        craft(victim, method="sv-uap", source=Pictures(), layer="conv1")


class _Fixed:
    data_class = "driven"

    def describe(self) -> dict:
        return {"source": "fixed"}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(9))


# DM-UAP


def test_the_twin_descends_and_returns(exact_victim: Victim) -> None:
    images, before = pictures(16), exact_victim.weights_sha256
    labels = (exact_victim(images).argmax(1) + 1) % 10  # wrong ones, so that there is something to learn
    twin = Twin(exact_victim)

    def loss() -> float:
        return nn.functional.cross_entropy(twin.victim(images), labels).item()

    start = loss()
    twin.descend(images, labels, radius=0.5, steps=10, smoothing=0.0)
    moved = torch.stack(
        [(a - b).norm() for a, b in zip(twin.weights, exact_victim.module.parameters(), strict=True)]
    ).norm()
    assert loss() < 0.9 * start
    assert 0.1 < moved <= 0.5 + 1e-5
    twin.restore()
    assert loss() == start
    assert Victim(exact_victim.module, preprocessing=TINY, device="cpu").weights_sha256 == before
    assert not any(p.requires_grad for p in exact_victim.module.parameters())


def test_friendlier_images_stay_near(exact_victim: Victim) -> None:
    images, twin = pictures(16), Twin(exact_victim)
    labels = (exact_victim(images).argmax(1) + 1) % 10
    nearer = twin.friendlier(images, labels, radius=0.5, steps=10)
    before, after = (nn.functional.cross_entropy(exact_victim(x), labels, reduction="none") for x in (images, nearer))
    assert (after < before).float().mean() > 0.9
    assert (nearer - images).flatten(1).norm(dim=1).max() <= 0.5 + 1e-5
    assert nearer.min() >= 0
    assert nearer.max() <= 1


def test_dm_uap_leaves_the_victim_alone(tiny_victim: Victim) -> None:
    before = copy.deepcopy(tiny_victim.module.state_dict())
    craft(tiny_victim, method="dm-uap", source=Pictures(), budget=200, model_steps=2, data_steps=1)
    assert all(torch.equal(value, before[name]) for name, value in tiny_victim.module.state_dict().items())


# FG-UAP and stopping


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.3)])
def test_fg_uap_reaches_the_linear_optimum(norm: str, eps: float) -> None:
    plain, w = linear_victim()
    module = nn.Sequential(*plain.module.children(), nn.Linear(2, 2))  # the features are now (w.x + 2, 1)
    victim = Victim(module, preprocessing=plain.preprocessing, device="cpu")
    uap = craft(victim, method="fg-uap", source=NearGrey(), eps=eps, norm=norm, lr=0.005, budget=3000)
    assert (w * uap.delta).sum() <= 0.99 * (w * -eps * steepest(w, norm)).sum()


def test_fg_uap_turns_the_features(tiny_victim: Victim) -> None:
    held_out = pictures(200, seed=77)
    clean = tiny_victim.features(held_out)

    def turned(method: str) -> float:
        uap = craft(tiny_victim, method=method, source=Pictures(), eps=WIDE, budget=1200)
        return torch.cosine_similarity(tiny_victim.features(uap.apply(held_out)), clean).mean().item()

    assert turned("fg-uap") < 0.8 * turned("noise")


def test_stopping_makes_a_run_driven_and_keeps_the_best(tiny_victim: Victim, tmp_path: Path) -> None:
    kwargs = {"method": "fg-uap", "source": NearGrey32(), "eps": WIDE, "budget": 640, "looks": 4}
    uap = craft(tiny_victim, stop_on=Pictures(), folder=tmp_path / "run", **kwargs)
    assert uap.data_class == "driven"
    assert craft(tiny_victim, **kwargs).data_class == "none"
    log = (tmp_path / "run" / "stats.jsonl").read_text()
    assert log.count("stop_on_rate") == 4


class NearGrey32:
    data_class = "none"

    def describe(self) -> dict:
        return {"source": "near-grey"}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        return (0.5 + 0.05 * torch.randn(n, 3, 32, 32, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize(("cumulative", "ends"), [(False, 7), (True, 6)])
def test_patience_in_a_row_or_in_all(
    cumulative: bool, ends: int, tiny_victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [1, 3, 2, 2, 4, 1, 1, 1]  # of ten images
    stopping = StopOnImages(crafting(tiny_victim, stop_on=Pictures()), every=2, patience=3, cumulative=cumulative, n=10)
    looks = iter(rates)
    monkeypatch.setattr(stopping, "_clean", torch.zeros(10))
    monkeypatch.setattr(stopping, "_predict", lambda delta: (torch.arange(10) < next(looks)).float())
    number = 0
    while not stopping.finished():
        number += 1
        figures = stopping.look(torch.full((1, 3, 32, 32), float(number)))
        assert bool(figures) == (number % 2 == 0)
    assert number == 2 * (ends if cumulative else 8)
    assert (stopping.best(torch.zeros(1)) == 10).all()  # the fifth look, the tenth step


def test_a_stopped_run_resumes_to_the_same_pattern(tiny_victim: Victim, tmp_path: Path) -> None:
    def run(folder: Path, kill_at: int = 0) -> tuple[Tensor, Crafting]:
        calls = 0

        def callback(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                raise Killed

        made = crafting(
            tiny_victim,
            eps=WIDE,
            stop_on=Pictures(),
            folder=RunFolder(folder, {}),
            callback=callback,
            save_every=8,
        )

        def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
            made.cost.back_propagated(4)
            return torch.randn(delta.shape, generator=generator), {}

        stopping = StopOnImages(made, every=2, patience=3, n=60)
        start = torch.zeros(1, 3, 32, 32)
        step = SteepestStep(WIDE)
        return optimise(made, "walk", gradient, delta=start, step=step, images=4000, stopping=stopping), made

    whole, finished = run(tmp_path / "whole")
    assert finished.stopped == "no better on --stop-on images"
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_at=5)
    resumed, again = run(tmp_path / "killed")
    assert torch.equal(resumed, whole)
    assert again.cost.image_gradients == finished.cost.image_gradients < 4000


# Snapshots and tiles


def test_snapshots_keep_the_first_pattern_after_each_mark(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, [20, 10])
    for spent in (5, 12, 15, 31):
        snapshots.offer(spent, lambda spent=spent: torch.full((1, 1, 2, 2), float(spent)))
    assert [(spent, delta.mean().item()) for spent, delta in snapshots.read()] == [(12, 12.0), (31, 31.0)]
    assert Snapshots(tmp_path / "none", [1]).read() == []


@pytest.mark.parametrize("method", ["sgd-uap", "uap", "sv-uap"])
def test_a_run_leaves_patterns_on_the_way(method: str, tiny_victim: Victim, tmp_path: Path) -> None:
    kwargs = {"method": method, "source": Pictures(), "budget": 300, **SMALL.get(method, {})}
    whole = craft(tiny_victim, **kwargs)
    end = whole.card["cost"]["image_gradients"]
    marked = craft(tiny_victim, folder=tmp_path / "run", marks=(100, end), **kwargs)
    (early, first), (late, last) = Snapshots(tmp_path / "run" / "marks", (100, end)).read()
    assert 100 <= early < late == end
    assert marked.sha256 == whole.sha256
    sign = -1 if method == "sv-uap" and torch.equal(last[0], -whole.delta) else 1  # chosen at the end
    assert torch.allclose(sign * last[0], whole.delta, atol=1e-7)
    assert not torch.equal(first, last)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("method", ["sgd-uap", "uap"])
def test_a_tiled_pattern_is_periodic(method: str, tile: int, tiny_victim: Victim) -> None:
    uap = craft(tiny_victim, method=method, source=Pictures(), eps=EPS, budget=300, tile=tile)
    side = 32 // tile
    assert torch.equal(uap.delta, uap.delta[:, :side, :side].repeat(1, tile, tile))
    assert uap.delta.std(dim=(1, 2)).max() > 0
    assert 0 < uap.delta.abs().max() <= EPS + 1e-6
    assert uap.card["method"]["params"]["tile"] == tile
