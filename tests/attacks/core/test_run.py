"""What a run is handed and what it leaves on record: sources, data class, counts, and draws of defences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks import Crafting, craft
from uapgen.attacks.core import method as registry
from uapgen.attacks.core.method import register
from uapgen.attacks.core.optimise import gradient_of, optimise
from uapgen.attacks.core.record import Record, Stage
from uapgen.attacks.core.steps import SteepestStep
from uapgen.defences import parse_defences
from uapgen.proxies import GaussianPrior, Mixture, Pool
from uapgen.runfolder import load_state, save_state
from uapgen.runtime import rng

EPS = 10 / 255


class Grey:
    """Images of one grey; of a data class that is told."""

    def __init__(self, data_class: str = "driven") -> None:
        self.data_class = data_class

    def describe(self) -> dict[str, Any]:
        return {"source": "grey", "of": self.data_class}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.full((n, 3, 32, 32), 0.5)


@pytest.fixture
def crafting() -> Crafting:
    return Crafting(small_victim(), Grey(), EPS, seed=0, budget=100)


@pytest.fixture
def careless() -> Iterator[str]:
    """A method whose author tells nothing: no cost, no source, no batch."""

    @register("careless", paper="none", year=None)
    def function(run: Crafting) -> Tensor:
        def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
            assert run.source is not None
            x = run.source.batch(6, generator)
            towards, loss = gradient_of(run, lambda d: run.victim(x + d).logsumexp(1).mean(), delta)
            return towards, {"loss": loss}

        start = torch.zeros(1, 3, 32, 32)
        return optimise(run, "walk", gradient, delta=start, step=SteepestStep(EPS), images=run.budget)

    yield "careless"
    del registry._METHODS["careless"]


def test_a_method_that_tells_nothing_has_a_full_card(careless: str) -> None:
    card = craft(small_victim(), method=careless, source=Grey(), budget=20).card
    assert card["data"] == {"class": "driven", "sources": [{"source": "grey", "of": "driven"}]}
    assert card["cost"] == {"image_gradients": 24, "image_forwards": 0}
    stage = {"name": "walk", "steps": 4, "passes": 4, "image_gradients": 24, "batch": [6, 6], "images": [6, 6]}
    assert card["method"]["effective"] == {"steps": 4, "batch": [6, 6], "gan": False, "stages": [stage]}


def test_images_that_nobody_drew_are_not_on_the_card() -> None:
    card = craft(small_victim(), method="noise", source=Grey()).card
    assert card["data"] == {"class": "none", "sources": []}
    assert card["method"]["effective"] == {"steps": 0, "gan": False, "stages": []}


def test_two_crafts_on_one_victim_keep_their_counts_apart() -> None:
    victim = small_victim()
    runs = [Crafting(victim, None, EPS, seed=0, budget=1) for _ in range(2)]
    for n, run in enumerate(runs, 1):
        run.look(run.victim, torch.zeros(n, 3, 32, 32))
    victim(torch.zeros(5, 3, 32, 32))  # a measurement outside
    assert [run.cost.image_forwards for run in runs] == [1, 2]


def test_sources_are_named_once_in_the_order_of_their_use(crafting: Crafting) -> None:
    noise = GaussianPrior(32)
    assert crafting.record.sources == []
    drawn = crafting.draw_from(noise)
    assert crafting.draw_from(drawn) is crafting.draw_from(noise) is drawn
    assert crafting.source is crafting.source
    assert [source.describe()["source"] for source in crafting.record.sources] == ["gaussian", "grey"]


def test_what_a_source_is_made_of_still_counts_for_the_class(crafting: Crafting) -> None:
    made = crafting.draw_from(Grey("none"), made_of=[crafting.source, None])
    assert crafting.record.sources == [made]
    assert crafting.source is not None  # asked for again, it is still spoken for
    assert crafting.record.sources == [made]
    assert {source.data_class for source in crafting.record.drawn} == {"none", "driven"}


def test_what_a_source_draws_from_others_is_no_draw_of_the_run(crafting: Crafting) -> None:
    assert crafting.source is not None
    inner = Pool(crafting.source, 40, seed=0)
    mixture = crafting.draw_from(Mixture([(inner, 1.0)]), made_of=[crafting.source])
    mixture.batch(3, rng(0))
    assert crafting.record.images == 3
    crafting.source.batch(2, rng(0))
    assert crafting.record.images == 5


def test_a_stage_says_the_range_of_its_batches() -> None:
    stage = Stage()
    for passes, images in ((Counter({4: 2}), 4), (Counter({1: 1, 8: 1}), 0)):
        stage.add(passes, images)
    told = {"steps": 2, "passes": 4, "image_gradients": 17, "batch": [1, 8], "images": [0, 4]}
    assert stage.as_dict() == told
    assert Stage.of(told) == stage
    nothing = Stage()
    nothing.add(Counter(), 0)
    assert nothing.as_dict() == {"steps": 1, "passes": 0, "image_gradients": 0}
    assert Stage.of(nothing.as_dict()) == nothing
    assert Record().effective([]) == {"steps": 0, "gan": False, "stages": []}


def test_a_look_meets_one_draw_and_the_next_another(crafting: Crafting) -> None:
    keys = []

    def view(x: Tensor) -> None:
        for part in x.split(2):
            crafting.victim(part)
            keys.append(crafting.defence_rng().initial_seed())

    for _ in range(2):
        crafting.look(view, torch.zeros(4, 3, 32, 32))
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert keys[0] == rng(0, "through", 0, 4).initial_seed()
    assert crafting.defence_rng().initial_seed() == rng(0, "through", 0, 8).initial_seed()


def test_defences_leave_the_counts_alone() -> None:
    common = {"method": "spgd", "source": Grey(), "budget": 20, "batch": 5, "min_steps": 1}
    plain, through = (craft(small_victim(), through=parse_defences(names), **common) for names in ("none", "jpeg75"))
    assert plain.card["cost"] == through.card["cost"] == {"image_gradients": 20, "image_forwards": 20}


def test_a_state_of_an_earlier_version_goes_on_without_a_record(careless: str, tmp_path: Path) -> None:
    """What it did before is not known: the card tells nothing, and the counts go on."""
    whole = craft(small_victim(), method=careless, source=Grey(), budget=20, folder=tmp_path)
    state = tmp_path / "walk.safetensors"
    with safe_open(state, framework="pt") as file:
        assert "stages" in (file.metadata() or {})["uapgen"]
    tensors, meta = load_state(state)
    save_state(state, tensors, {key: value for key, value in meta.items() if key not in ("stages", "layers")})
    again = craft(small_victim(), method=careless, source=Grey(), budget=20, folder=tmp_path)
    assert "effective" not in again.card["method"]
    assert (again.sha256, again.card["cost"]) == (whole.sha256, whole.card["cost"])
