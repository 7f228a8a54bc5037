"""Refinement: where its steps fall, which start and objective each takes, and the same bytes after a kill."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks.cbgan import refinement
from uapgen.attacks.cbgan.objective import Objective
from uapgen.attacks.cbgan.refinement import ImagesWithCrops, Refinement, refine
from uapgen.attacks.core.run import Crafting
from uapgen.proxies import Procedural
from uapgen.runfolder import RunFolder

EPS = 10 / 255
BATCH = 4


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def _few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "HELD_OUT_IMAGES", 8)


def crafting(folder: Path | None = None, budget: int = 128, **options: Any) -> Crafting:
    held = {"folder": RunFolder(folder, {}) if folder else None}
    return Crafting(small_victim(), None, EPS, seed=1, budget=budget, **held, **options)


def starts(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [EPS * (2 * torch.rand(1, 3, 32, 32, generator=generator) - 1) for _ in range(n)]


def refined(run: Crafting, n: int = 1, batch: int = BATCH, **settings: Any) -> Tensor:
    return refine(run, Procedural(32), Objective(), starts(n), Refinement(**settings), batch)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]


def test_the_step_falls_in_eight_equal_parts_of_one_stage(tmp_path: Path) -> None:
    refined(crafting(tmp_path), lr=0.16, lr_end=0.00125)
    lines = log(tmp_path)
    assert {line["stage"] for line in lines} == {"refine0"}
    falls = [(lr, len(list(steps))) for lr, steps in groupby(line["lr"] for line in lines)]
    assert falls == [(0.16 / 2**i, 4) for i in range(8)]  # 128 image-gradients are 32 batches
    assert [file.name for file in tmp_path.glob("*.safetensors")] == ["refine0.safetensors"]


@pytest.mark.parametrize(("budget", "parts", "spent"), [(128, 8, 128), (70, 8, 64), (24, 6, 24), (2, 1, 4)])
def test_a_budget_of_few_batches_has_fewer_parts(budget: int, parts: int, spent: int, tmp_path: Path) -> None:
    run = crafting(tmp_path, budget)
    refined(run)
    assert len({line["lr"] for line in log(tmp_path)}) == parts
    assert run.cost.image_gradients == spent


def test_rounds_share_the_budget_and_the_objectives_take_turns(tmp_path: Path) -> None:
    run = crafting(tmp_path / "turns")
    refined(run, n=2, refinement=40)
    plain = crafting(tmp_path / "plain")
    refined(plain, n=2, refinement=40, features_by_turns=0.0)
    spent = {line["stage"]: line["images"] for line in log(tmp_path / "turns")}
    assert spent == {"refine0": 32, "refine1": 32, "refine2": 32}  # 128 // 3 are ten batches; eight parts of one
    first = {line["stage"]: line["loss"] for line in reversed(log(tmp_path / "turns"))}
    usual = {line["stage"]: line["loss"] for line in reversed(log(tmp_path / "plain"))}
    assert [first[stage] == usual[stage] for stage in ("refine0", "refine1", "refine2")] == [True, False, True]


class Scored:
    """Held-out images that score a pattern by its mean, and remember what they were asked."""

    def __init__(self, run: Crafting, source: Any, n: int, batch: int) -> None:
        self.run, self.source, self.images, self.asked = run, source, torch.zeros(n, 1), []

    def score(self, delta: Tensor) -> float:
        self.asked.append(delta)
        return delta.mean().item()


def test_the_best_start_goes_first_and_the_best_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "HeldOut", Scored)
    began: list[Tensor] = []
    ends = iter([torch.full((1, 3, 32, 32), mean) for mean in (0.01, 0.03, 0.02)])

    def instead(run: Crafting, stage: str, gradient: Any, *, delta: Tensor, **_: Any) -> Tensor:
        began.append(delta)
        return next(ends)

    monkeypatch.setattr(refinement, "optimise", instead)
    given = [torch.full((1, 3, 32, 32), mean) for mean in (0.0, 0.02, 0.01)]
    run = crafting()
    kept = refine(run, Procedural(32), Objective(), given, Refinement(refinement=40), BATCH)
    assert [delta.mean().item() for delta in began] == pytest.approx([0.02, 0.01, 0.0])
    assert kept.mean().item() == pytest.approx(0.03)
    assert run.notes["held_out"]["starts"] == pytest.approx([0.0, 0.02, 0.01])
    assert run.notes["held_out"]["ends"] == pytest.approx([0.01, 0.03, 0.02])


@pytest.mark.parametrize("killed_after", [2, 7, 19, 31])
def test_a_kill_in_the_middle_of_a_refinement_changes_no_byte(killed_after: int, tmp_path: Path) -> None:
    left = killed_after

    def kill(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    with pytest.raises(Killed):
        refined(crafting(tmp_path, save_every=12, callback=kill), n=2, refinement=64)
    whole = crafting()
    run = crafting(tmp_path)
    assert torch.equal(refined(run, n=2, refinement=64), refined(whole, n=2, refinement=64))
    assert run.cost.image_gradients == whole.cost.image_gradients == 128
    assert run.notes == whole.notes


def test_shuffled_refinement_costs_the_same_and_goes_another_way() -> None:
    still, moved = crafting(), crafting()
    assert not torch.equal(refined(still), refined(moved, shuffle=True))
    assert still.cost.as_dict() == moved.cost.as_dict()


@pytest.mark.parametrize(("share", "crops"), [(0.0, 0), (0.5, 4), (0.8, 6), (1.0, 8)])
def test_a_batch_has_its_share_of_crops(share: float, crops: int) -> None:
    run = crafting()
    images = ImagesWithCrops(run, Procedural(32), 8, share)
    assert images.counts == (crops, 8 - crops)
    assert images.batch(starts(1)[0], run.rng("x")).shape == (8, 3, 32, 32)
