"""The three stages together: what every setting does, what is refused, and one budget for all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import small_victim
from uapgen.attacks import craft, find_method
from uapgen.attacks.cbgan.gan_stage import GanStage
from uapgen.attacks.cbgan.generator_stage import GeneratorStage
from uapgen.attacks.cbgan.objective import Objective
from uapgen.attacks.cbgan.refinement import Refinement
from uapgen.attacks.core.plan import check_craft
from uapgen.errors import UsageError
from uapgen.perturbation import Perturbation

SMALL: dict[str, Any] = {
    "gan_from": 0,
    "gan_share": 0.25,
    "gan_every": 2,
    "gan_size": 32,
    "gan_width": 2,
    "gan_latent": 4,
    "gan_batch": 4,
    "generator_share": 0.2,
    "generator_width": 4,
    "candidates": 2,
    "pool": 12,
    "batch": 4,
    "crops": 0.5,
}
BUDGET = 64


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache of GANs for all tests, and small sets where a run would make hundreds of images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UAPGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("uapgen.attacks.cbgan.gan_stage.GAN_POOL", 16)
        patch.setattr("uapgen.gan.proxy_gan.COVERAGE_IMAGES", 8)
        patch.setattr("uapgen.attacks.cbgan.refinement.HELD_OUT_IMAGES", 8)
        yield


def crafted(**given: Any) -> Perturbation:
    return craft(small_victim(), seed=3, **{"budget": BUDGET, **SMALL, **given})


def observed(**given: Any) -> dict[str, Any]:
    """The pattern, the losses of all stages, how many starts there were, and what the card says of the GAN."""
    losses: list[tuple[str, float]] = []
    uap = crafted(**given, callback=lambda stage, *rest: losses.append((stage, rest[-1].get("loss", 0.0))))
    parts = uap.card["data"]["sources"][0]["parts"]
    starts = len(uap.card["method"]["notes"]["held_out"]["starts"])
    return {"delta": uap.sha256, "losses": [x for x in losses if x[0] != "gan"], "starts": starts, "gan": parts[1:]}


TWICE = {"refinement": 16}  # the 36 image-gradients of SMALL's refinement are two of them
GOLD = {"proxy_filter": "gold"}
USUAL: dict[str, dict[str, Any]] = {}  # what was observed beside one setting or another
# Field, another value, what is set beside it, where it shows. The generator's settings show in its losses: a
# pattern that is not the best start of the one refinement goes no further. Class weights first leave 1 after 256
# images, later than this run ends, so that `effective` shows in the GAN's description alone.
FIELDS: list[tuple[str, Any, dict[str, Any], str]] = [
    ("gan", False, {}, "delta"),
    ("gan_from", BUDGET + 1, {}, "delta"),
    ("gan_share", 0.4, {}, "delta"),
    ("gan_every", 3, {}, "delta"),
    ("gan_seed", 1, {}, "delta"),
    ("gan_size", 64, {}, "delta"),
    ("gan_width", 3, {}, "delta"),
    ("gan_latent", 5, {}, "delta"),
    ("gan_batch", 8, {}, "delta"),
    ("gan_weight", 0.6, {}, "delta"),
    ("proxy_filter", "gold", {}, "delta"),
    ("gold_keep", 0.2, GOLD, "delta"),
    ("effective", False, {}, "gan"),
    ("balance", 0.0, {}, "delta"),
    ("confidence", 0.0, {}, "delta"),
    ("statistics", 0.0, {}, "delta"),
    ("generator_share", 0.4, {}, "delta"),
    ("generator_width", 8, {}, "losses"),
    ("generator_lr", 0.1, {}, "losses"),
    ("generator_crops", 1.0, {}, "losses"),
    ("diversity", 50.0, {}, "losses"),
    ("candidates", 3, {}, "starts"),
    ("pool", 5, {}, "delta"),
    ("batch", 6, {}, "delta"),
    ("crops", 0.25, {}, "delta"),
    ("lr", 0.01, {}, "delta"),
    ("lr_end", 0.1, {}, "delta"),
    ("refinement", 12, {}, "losses"),
    ("shuffle", True, {}, "delta"),
    ("features_by_turns", 0.0, TWICE, "losses"),
    ("activation", 0.0, {}, "delta"),
    ("displacement", 0.0, {}, "delta"),
    ("logits", 2.0, {}, "delta"),
    ("features", 2.0, {}, "delta"),
    ("agreement", 0.0, {}, "delta"),
    ("start", 0.7, {}, "delta"),
    ("end", 0.7, {}, "delta"),
]


def test_the_table_names_every_parameter_in_its_order() -> None:
    order = [*GanStage.__annotations__, *GeneratorStage.__annotations__, "pool", "batch"]
    order += [*Refinement.__annotations__, *Objective.__annotations__]
    assert [field for field, *_ in FIELDS] == order == list(find_method("cbgan").parameters())
    assert len(order) == 37


@pytest.mark.parametrize(("field", "value", "beside", "shows"), FIELDS, ids=[row[0] for row in FIELDS])
def test_every_setting_does_what_it_names(field: str, value: Any, beside: dict[str, Any], shows: str) -> None:
    known = find_method("cbgan").parameters()
    assert value != (SMALL | beside).get(field, known[field].default)
    usual = USUAL.setdefault(str(beside), {}) or observed(**beside)
    USUAL[str(beside)] = usual
    assert observed(**{**beside, field: value})[shows] != usual[shows]


def test_the_card_is_flat_and_the_stages_get_their_parts() -> None:
    method = find_method("cbgan")
    params = method.check({"gan_width": "8", "generator_width": 5, "lr": 0.3, "end": 0.5, "batch": 3})
    assert all(not isinstance(value, dict) for value in params.values())
    parts = method.arguments(params)
    assert parts == {
        "gan": GanStage(gan_width=8),
        "generator": GeneratorStage(generator_width=5),
        "pool": 384,
        "batch": 3,
        "refinement": Refinement(lr=0.3),
        "objective": Objective(end=0.5),
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gan_share": 0.5, "generator_share": 0.5}, "take 1 of the budget"),
        ({"gan": False, "generator_share": 1.0}, "take 1 of the budget"),
        ({"refinement": 3}, "less than one batch of 4"),
        ({"start": 0.5, "end": 0.5}, "start=0.5 is not below end=0.5"),
        ({"activation": 0, "displacement": 0, "agreement": 0}, "all weights of the loss"),
        ({"gan_size": 48}, "gan_size=48"),
        ({"gan": False, **GOLD}, "gan=false leaves it out"),
        ({"pool": 0, **GOLD}, "pool=0"),
        ({"budget": 8, **GOLD}, "give a larger one"),
        ({"lr": 0}, "lr=0 is out of range"),
        ({"candidates": 0}, "candidates=0 is out of range"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(params: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        crafted(**params, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_gan_that_is_not_trained_takes_nothing_from_the_generator() -> None:
    shares = {"gan": False, "gan_share": 0.9, "generator_share": 0.2}
    assert check_craft(small_victim(), budget=BUDGET, **SMALL | shares).params["gan_share"] == 0.9


def test_small_budgets_leave_the_gan_out() -> None:
    without, small, paid = (crafted(**given) for given in ({"gan": False}, {"gan_from": BUDGET + 1}, {}))
    assert small.sha256 == without.sha256 != paid.sha256
    assert small.card["cost"] == without.card["cost"]
    assert "gan" in paid.card["method"]["notes"] and "gan" not in small.card["method"]["notes"]


@pytest.mark.parametrize(("budget", "held_out", "pool"), [(40, 8, 40), (160, 22, 160), (600, 85, 384)])
def test_small_budgets_make_few_images(budget: int, held_out: int, pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uapgen.attacks.cbgan.refinement.HELD_OUT_IMAGES", 256)
    card = craft(small_victim(), budget=budget, generator_share=0.0).card
    assert card["method"]["notes"]["held_out"]["n"] == held_out
    assert [part["pool"] for part in card["data"]["sources"][0]["parts"]] == [pool]
    assert 0.75 * budget <= card["cost"]["image_gradients"] <= budget


def test_one_run_reports_its_budget_through_all_stages() -> None:
    heard: list[tuple[str, int, int]] = []
    # A seed of its own: its GAN is not in the cache.
    uap = crafted(gan_seed=7, callback=lambda stage, done, total, _: heard.append((stage, done, total)))
    assert list(dict.fromkeys(stage for stage, *_ in heard)) == ["gan", "generator", "refine0"]
    assert {total for *_, total in heard} == {BUDGET}
    done = [done for _, done, _ in heard]
    assert done == sorted(done)
    assert done[-1] == uap.card["cost"]["image_gradients"] <= BUDGET


def test_a_folder_with_a_state_for_every_part_of_a_refinement_goes_on(tmp_path: Path) -> None:
    """States of that kind are not read: the refinement starts at its beginning, and ends in the same bytes."""
    whole = crafted(folder=tmp_path / "whole")
    old = tmp_path / "old"
    shutil.copytree(tmp_path / "whole", old, ignore=shutil.ignore_patterns("*.lock", "lock"))
    for part in range(5):
        shutil.copy(old / "refine0.safetensors", old / f"refine0.{part}.safetensors")
    (old / "refine0.safetensors").unlink()
    uap = crafted(folder=old)
    assert torch.equal(uap.delta, whole.delta)
    assert json.loads((old / "options.json").read_text())["method"] == "cbgan"
