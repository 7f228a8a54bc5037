"""The perturbation generator's share of a budget, and the patterns that it hands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks.cbgan.generator_stage import GeneratorStage, generate_candidates
from uapgen.attacks.cbgan.objective import Objective
from uapgen.attacks.core.run import Crafting
from uapgen.proxies import Procedural
from uapgen.runfolder import RunFolder

EPS = 10 / 255
SETTINGS: dict[str, Any] = {"generator_share": 0.25, "generator_width": 4}


class Killed(Exception):
    pass


def candidates(run: Crafting, batch: int = 4, **settings: Any) -> list[Tensor]:
    return generate_candidates(run, Procedural(32), Objective(), GeneratorStage(**SETTINGS | settings), batch)


def crafting(**options: Any) -> Crafting:
    return Crafting(small_victim(), None, EPS, seed=1, budget=96, **options)


def test_the_generator_takes_whole_batches_of_its_share() -> None:
    assert GeneratorStage().images(6000, 8) == 296
    assert GeneratorStage().images(100, 8) == 0
    assert GeneratorStage(generator_share=0.0).images(6000, 8) == 0


def test_a_share_below_a_batch_hands_on_nothing() -> None:
    run = crafting()
    assert candidates(run, batch=25) == []
    assert run.cost.image_gradients == 0


def test_candidates_are_patterns_within_the_bound() -> None:
    run = crafting()
    made = candidates(run, candidates=3)
    assert [delta.shape for delta in made] == [(1, 3, 32, 32)] * 3
    assert max(delta.abs().max().item() for delta in made) <= EPS + 1e-6
    assert not torch.equal(made[0], made[1])
    assert run.cost.image_gradients == 24


def test_an_odd_batch_pays_for_the_pairs_that_it_has() -> None:
    """Two patterns meet the same half of a batch: 5 images are 2 pairs, and a stage of 20 takes 5 such steps."""
    run = crafting()
    candidates(run, batch=5)
    assert run.cost.image_gradients == 20


def test_crops_are_their_share_of_the_images() -> None:
    plain, cropped = candidates(crafting()), candidates(crafting(), generator_crops=1.0)
    assert not torch.equal(plain[0], cropped[0])


@pytest.mark.parametrize("killed_after", [1, 4])
def test_an_interrupted_training_goes_on(killed_after: int, tmp_path: Path) -> None:
    left = killed_after

    def kill(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    with pytest.raises(Killed):
        candidates(crafting(folder=RunFolder(tmp_path / "run", {}), callback=kill, save_every=8))
    resumed = candidates(crafting(folder=RunFolder(tmp_path / "run", {})))
    assert torch.equal(torch.cat(resumed), torch.cat(candidates(crafting())))
