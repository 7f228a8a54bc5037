"""The GAN's share of a budget, and what the proxies are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, small_victim
from uapgen.attacks.cbgan.gan_stage import GanStage, make_proxies
from uapgen.attacks.core.run import Crafting
from uapgen.errors import UsageError
from uapgen.proxies import Procedural

NETWORK: dict[str, Any] = {"gan_every": 2, "gan_size": 32, "gan_width": 2, "gan_latent": 4, "gan_batch": 4}


@pytest.mark.parametrize(
    ("settings", "budget", "images"),
    [
        ({}, 24_000, 3600),  # 0.15 of it: 225 batches of 16
        ({}, 23_999, 0),
        ({"gan_from": 0}, 1200, 176),  # 180, in whole batches
        ({"gan_from": 0}, 100, 0),
        ({"gan": False, "gan_from": 0}, 24_000, 0),
        ({"proxy_filter": "gold"}, 1200, 176),  # a filter wants it at any budget
        ({"gan_share": 0.0}, 24_000, 0),
        ({"gan_batch": 7, "gan_from": 0}, 1200, 175),
    ],
)
def test_the_gan_takes_whole_batches_of_its_share(settings: dict[str, Any], budget: int, images: int) -> None:
    assert GanStage(**settings).images(budget) == images


def test_a_batch_has_to_split_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uapgen.attacks.cbgan.gan_stage.world", lambda: 3)
    with pytest.raises(UsageError, match="gan_batch=16 does not split over 3 processes"):
        GanStage(gan_from=0).check(1200, 384)
    GanStage(gan_from=0, gan_batch=15).check(1200, 384)
    GanStage().check(1200, 384)  # no GAN is trained


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("uapgen.attacks.cbgan.gan_stage.GAN_POOL", 16)
    monkeypatch.setattr("uapgen.gan.proxy_gan.COVERAGE_IMAGES", 8)
    return tmp_path / "cache"


def proxies(pool: int, **settings: Any) -> tuple[Crafting, dict[str, Any]]:
    run = Crafting(small_victim(), None, 10 / 255, seed=1, budget=64)
    return run, make_proxies(run, GanStage(gan_from=0, gan_share=0.25, **NETWORK, **settings), pool).describe()


PROCEDURAL = Procedural(32).describe()


def test_without_a_gan_all_proxies_are_procedural() -> None:
    run, told = proxies(5, gan=False, gan_weight=1.0)
    assert told["parts"] == [{**PROCEDURAL, "weight": 1.0, "pool": 5}]
    assert run.cost.image_gradients == 0


@pytest.mark.usefixtures("cache")
def test_samples_have_their_weight_and_the_gan_its_cost() -> None:
    run, told = proxies(5, gan_weight=0.3)
    assert told["parts"][0] == {**PROCEDURAL, "weight": 0.7, "pool": 5}
    assert [told["parts"][1][key] for key in ("source", "weight", "pool")] == ["gan", 0.3, 5]
    settings = told["parts"][1]["settings"]
    assert (settings["images"], settings["victim_every"], settings["batch"]) == (32, 2, 4)
    assert run.cost.image_gradients == 16
    again, _ = proxies(5, gan_weight=0.3)  # from the cache
    assert again.cost.as_dict() == run.cost.as_dict()
    assert again.notes == run.notes


@pytest.mark.usefixtures("cache")
def test_a_pool_of_nothing_makes_fresh_images() -> None:
    assert not any("pool" in part for part in proxies(0)[1]["parts"])


@pytest.mark.usefixtures("cache")
def test_gold_keeps_a_share_and_looks_at_all() -> None:
    plain, _ = proxies(6)
    run, told = proxies(6, proxy_filter="gold", gold_keep=0.25)
    assert told["parts"][1]["filter"] == {"name": "gold", "keep": 0.25, "drawn": 24}
    assert set(run.notes["gold"]) == {"drawn", "kept"}
    assert run.cost.image_forwards == plain.cost.image_forwards + 24


def test_procedural_images_have_the_victims_size() -> None:
    run = Crafting(small_victim(), None, 10 / 255, seed=1, budget=64)
    assert make_proxies(run, GanStage(gan=False), 3).batch(2, run.rng("draw")).shape == (2, *TINY.input_size)
