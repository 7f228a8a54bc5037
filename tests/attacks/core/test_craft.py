"""A craft's plan, its one description, and what becomes of an error inside a method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks import Crafting, Method, check_craft, craft
from uapgen.attacks.core.method import _METHODS
from uapgen.attacks.core.optimise import repeat
from uapgen.defences import parse_defences
from uapgen.errors import UapgenError, UsageError
from uapgen.proxies import GaussianPrior


def breaks(run: Crafting, *, batch: int = 1, lr: float = 0.1) -> Tensor:
    raise ZeroDivisionError("float division by zero")


def refuses(run: Crafting) -> Tensor:
    raise UapgenError("the loss is not finite")


class _Nothing:
    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        return None


def reports(run: Crafting) -> Tensor:
    def advance(generator: torch.Generator) -> dict[str, Any]:
        run.cost.image_gradients += 1
        return {}

    repeat(run, "stage", _Nothing(), advance, 2)
    return torch.zeros(1, 3, 32, 32)


@pytest.fixture(autouse=True)
def _own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (breaks, refuses, reports):
        name = function.__name__
        monkeypatch.setitem(_METHODS, name, Method(name, function, "none", None, "none"))


def test_what_a_method_raises_names_it_and_what_was_set() -> None:
    victim = small_victim()
    with pytest.raises(UapgenError) as caught:
        craft(victim, method="breaks", batch="3")
    assert str(caught.value) == "breaks failed with ZeroDivisionError: float division by zero (batch=3)"
    assert not isinstance(caught.value, UsageError)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(UapgenError, match=r"\(all defaults\)$"):
        craft(victim, method="breaks")
    with pytest.raises(UapgenError, match=r"^the loss is not finite$"):
        craft(victim, method="refuses")


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_what_the_callback_raises_stays_the_callers(error: BaseException) -> None:
    def callback(*_: object) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        craft(small_victim(), method="reports", callback=callback)
    assert caught.value is error


def test_run_folder_and_card_say_what_the_plan_says(tmp_path: Path) -> None:
    """The keys are those that run folders and cards have always had: old ones go on."""
    victim, defences = small_victim(), parse_defences("none,shift2")
    given: dict[str, Any] = {"method": "sga", "source": GaussianPrior((32, 32)), "budget": 40, "tile": 2, "batch": "10"}
    plan = check_craft(victim, **given, through=defences, target=1, seed=4)
    said = json.loads(json.dumps(plan.describe()))
    card = craft(victim, **given, through=defences, target=1, seed=4, folder=tmp_path / "run").card
    assert json.loads((tmp_path / "run" / "options.json").read_text()) == said
    keys = "method params victim precision source eps norm seed budget target tile stop_on through"
    assert list(said) == keys.split()
    assert list(said["params"]) == ["batch", "minibatch", "passes", "loss", "clamp", "step", "min_steps"]
    extra = {"target": 1, "tile": 2, "through": [defence.name for defence in defences]}
    assert card["method"]["params"] == {**said["params"], **extra}
    assert card["method"]["params"]["batch"] == 10
    assert (card["method"]["budget"], card["seed"], card["victim"]) == (40, 4, said["victim"])
    plain = check_craft(victim, method="noise").describe()
    assert "through" not in plain and (plain["stop_on"], plain["params"]) == (None, {})


@pytest.mark.parametrize("budget", [0, -3, 1.5, float("nan"), True, "quik", "-1", "1.5", [], None])
def test_budgets_that_cannot_be(budget: Any) -> None:
    with pytest.raises(UsageError, match="expected quick, standard, full or a number"):
        check_craft(small_victim(), method="noise", budget=budget)
