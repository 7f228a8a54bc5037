"""The loop and its schedules: which step size at which step, from which draws, and the same bytes after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks.core.optimise import Staircase, geometric, gradient_of, optimise
from uapgen.attacks.core.run import Crafting
from uapgen.attacks.core.steps import AdamStep, HalvingStep, SteepestStep, project
from uapgen.attacks.pd_ua import MomentumStep
from uapgen.errors import UapgenError
from uapgen.runfolder import RunFolder
from uapgen.runtime import rng

EPS = 10 / 255
BATCH = 3
START = torch.zeros(1, 3, 32, 32)


class Killed(Exception):
    pass


class Recorded(AdamStep):
    """Adam that remembers the sizes of its steps."""

    def __init__(self, lr: float) -> None:
        super().__init__(lr)
        self.sizes: list[float] = []

    def __call__(self, delta: Tensor, gradient: Tensor) -> Tensor:
        self.sizes.append(self.lr)
        return super().__call__(delta, gradient)


def crafting(folder: Path | None = None, **kwargs: Any) -> Crafting:
    options = {"folder": RunFolder(folder, {}) if folder else None, **kwargs}
    return Crafting(small_victim(), None, EPS, seed=5, budget=1000, **options)


def energy(run: Crafting, delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
    """A gradient that depends on delta, the draws and the victim; it costs BATCH image-gradients."""
    x = torch.rand(BATCH, 3, 32, 32, generator=generator)
    towards, loss = gradient_of(run, lambda d: run.victim((x + d).clamp(0, 1)).square().mean(), delta)
    return towards, {"loss": loss}


def scheduled(run: Crafting, images: int, schedule: Staircase | None, step: AdamStep | None = None) -> Tensor:
    given = {"delta": START, "step": step or AdamStep(1.0), "images": images, "schedule": schedule}
    return optimise(run, "stage", lambda d, g: energy(run, d, g), **given)


def test_geometric_falls_by_one_factor_from_the_start_to_the_end() -> None:
    assert geometric(0.16, 0.01, 5).sizes == pytest.approx((0.16, 0.08, 0.04, 0.02, 0.01))
    assert geometric(0.16, 0.01, 5).sizes[0] == 0.16
    assert geometric(0.16, 0.01, 1).sizes == (0.16,)
    assert geometric(0.2, 0.2, 3).sizes == (0.2,) * 3


def test_every_part_has_its_share_of_the_images() -> None:
    stairs = Staircase((3.0, 2.0, 1.0))
    assert [stairs.part(done, 12) for done in range(12)] == [0] * 4 + [1] * 4 + [2] * 4
    assert [stairs.lr(done, 12) for done in (0, 3, 4, 11)] == [3.0, 3.0, 2.0, 1.0]
    assert stairs.part(12, 12) == stairs.part(50, 12) == 2  # an overdrawn stage stays in its last part
    # 7 parts of 49: in floating point the share done would fall short of a whole part here and there.
    assert [Staircase((0.0,) * 49).part(7 * i, 7 * 49) for i in range(49)] == list(range(49))


@pytest.mark.parametrize(
    ("images", "parts", "steps"), [(36, 3, [4, 4, 4]), (33, 2, [6, 5]), (3, 4, [1]), (30, 1, [10])]
)
def test_each_step_has_the_size_of_its_part(images: int, parts: int, steps: list[int]) -> None:
    run, step = crafting(), Recorded(1.0)
    sizes = geometric(0.08, 0.01, parts).sizes
    scheduled(run, images, Staircase(sizes), step)
    assert step.sizes == [size for size, n in zip(sizes, steps, strict=False) for _ in range(n)]
    assert run.cost.image_gradients == images


def test_a_schedule_counts_from_where_its_stage_began() -> None:
    run, step = crafting(), Recorded(1.0)
    scheduled(run, 30, None)
    scheduled(run, 12, Staircase((2.0, 1.0)), step)
    assert step.sizes == [2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("step", [AdamStep(1), SteepestStep(1), MomentumStep(1, 0.9), HalvingStep(1, 1.0)])
def test_every_step_rule_takes_its_size_from_lr(step: Any) -> None:
    step.lr = 0.25
    delta = step(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert delta == pytest.approx(torch.full((1, 1, 2, 2), -0.25))


def test_parts_draw_like_stages_and_adam_goes_on() -> None:
    """The closed form: the same steps by hand, each part with draws of its own and one Adam for all."""
    run, sizes = crafting(), (0.02, 0.01, 0.003)
    delta, step = START, AdamStep(0.0)
    for part, size in enumerate(sizes):
        step.lr = size
        for iteration in range(4):
            towards, _ = energy(run, delta, rng(run.seed, f"stage.{part}", iteration))
            delta = project(step(delta, towards), EPS)
    assert torch.equal(scheduled(crafting(), 36, Staircase(sizes)), delta)


def test_without_a_schedule_the_stage_is_the_key() -> None:
    run, delta, step = crafting(), START, AdamStep(0.01)
    for iteration in range(5):
        delta = project(step(delta, energy(run, delta, rng(run.seed, "stage", iteration))[0]), EPS)
    assert torch.equal(scheduled(crafting(), 15, None, AdamStep(0.01)), delta)


@pytest.mark.parametrize("save_every", [1, 9, 14, 480])
@pytest.mark.parametrize("killed_after", [1, 4, 5, 8, 11])
def test_a_kill_in_the_middle_of_a_schedule_changes_no_byte(killed_after: int, save_every: int, tmp_path: Path) -> None:
    left = killed_after

    def kill(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    stairs = Staircase((0.02, 0.01, 0.003))
    with pytest.raises(Killed):
        scheduled(crafting(tmp_path / "run", callback=kill, save_every=save_every), 36, stairs)
    run, step = crafting(tmp_path / "run"), Recorded(1.0)
    assert torch.equal(scheduled(run, 36, stairs, step), scheduled(crafting(), 36, stairs))
    every = -(-save_every // BATCH)  # iterations between two saves; the kill comes before the iteration's own save
    assert len(step.sizes) == 12 - (killed_after - 1) // every * every
    assert run.cost.image_gradients == 36
    assert [file.name for file in (tmp_path / "run").glob("*.safetensors")] == ["stage.safetensors"]


def test_the_callback_hears_of_the_run_and_the_log_of_the_stage(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    run = crafting(tmp_path / "run", callback=lambda stage, done, total, _: heard.append((stage, done, total)))
    for name in ("first", "second"):
        optimise(
            run,
            name,
            lambda d, g: energy(run, d, g),
            delta=START,
            step=AdamStep(1),
            images=6,
            schedule=geometric(1, 1, 2),
        )
    assert heard == [("first", 3, 1000), ("first", 6, 1000), ("second", 9, 1000), ("second", 12, 1000)]
    log = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["images"], line["image_gradients"], line["lr"]) for line in log] == [
        ("first", 3, 3, 1.0),
        ("first", 6, 6, 1.0),
        ("second", 3, 9, 1.0),
        ("second", 6, 12, 1.0),
    ]


def test_no_more_than_the_budget_is_reported() -> None:
    heard: list[int] = []
    run = crafting(callback=lambda stage, done, total, _: heard.append(done))
    run.budget = 7
    scheduled(run, 7, None)
    assert heard == [3, 6, 7]


def test_a_gradient_that_is_not_finite_ends_the_run() -> None:
    run = crafting()
    with pytest.raises(UapgenError, match="stage: the gradient is not finite"):
        optimise(run, "stage", lambda d, g: (d / 0, {}), delta=START, step=AdamStep(1), images=6)
