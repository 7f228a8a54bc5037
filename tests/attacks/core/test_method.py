"""Parameters as methods declare them: what is read, what is refused and how, and that every method keeps to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks import Method, Parameter, check_craft, craft, methods
from uapgen.attacks.core.method import Limits, above, at_least, one_of, within
from uapgen.errors import UsageError
from uapgen.proxies import GaussianPrior
from uapgen.victims import Victim


@dataclass(frozen=True)
class Inner:
    depth: Annotated[int, at_least(1, at_most=8), "levels"] = 3


@dataclass(frozen=True)
class Outer:
    inner: Inner
    rate: Annotated[float, within(0, 1, high_open=True), "a share"] = 0.5


def function(
    run: Any,
    *,
    batch: Annotated[int, at_least(1, at_most=100), "images a step"] = 10,
    outer: Outer,
    lr: Annotated[float, above(0), "step in pixel units"] = 0.1,
    loss: Annotated[str, one_of("ce", "logit"), "what is lowered"] = "ce",
    clip: Annotated[bool, "cut to [0,1]"] = True,
    passes: Annotated[int | None, at_least(1), "walks"] = None,
    layer: str = "",
) -> Tensor:
    return torch.zeros(1, 3, 8, 8)


METHOD = Method("own", function, "none", 2026, "none")


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("batch", "7", 7),
        ("batch", 7, 7),
        ("batch", 7.0, 7),
        ("batch", "1e2", 100),
        ("batch", np.int64(7), 7),
        ("lr", "1e-3", 1e-3),
        ("lr", 2, 2.0),
        ("lr", np.float64(0.5), 0.5),
        ("rate", 0, 0.0),
        ("depth", "8", 8),
        ("loss", "logit", "logit"),
        ("clip", "off", False),
        ("clip", "True", True),
        ("clip", False, False),
        ("passes", "none", None),
        ("passes", None, None),
        ("passes", 3, 3),
        ("layer", "12", "12"),
    ],
)
def test_values_are_read_as_their_kind(name: str, value: Any, read: Any) -> None:
    found = METHOD.check({name: value})[name]
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch", "1.5", "own: batch=1.5 is not a whole number; expected a whole number, 1 to 100"),
        ("batch", 1.5, "own: batch=1.5 is not a whole number"),
        ("batch", 0, "own: batch=0 is out of range; expected a whole number, 1 to 100"),
        ("batch", True, "own: batch=True is not a whole number"),
        ("batch", None, "own: batch=None is not a whole number"),
        ("batch", "many", "own: batch=many is not a whole number"),
        ("batch", 10**400, "out of range"),
        ("lr", 0, "own: lr=0 is out of range; expected a finite number, above 0"),
        ("lr", "nan", "own: lr=nan is not a finite number"),
        ("lr", math.inf, "own: lr=inf is not a finite number"),
        ("lr", "1e999", "not a finite number"),
        ("lr", [1], r"own: lr=\[1\] is not a finite number"),
        ("rate", 1, "own: rate=1 is out of range; expected a finite number, at least 0 and below 1"),
        ("depth", 9, "own: depth=9 is out of range"),
        ("loss", "logits", "own: loss=logits is unknown; expected ce or logit; did you mean 'logit'"),
        ("loss", 1, "own: loss=1 is unknown"),
        ("clip", "maybe", "own: clip=maybe is unknown; expected true or false"),
        ("clip", 1, "own: clip=1 is unknown"),
        ("passes", 0, "own: passes=0 is out of range; expected a whole number, at least 1, or none"),
        ("layer", 3, "own: layer=3 is not a text"),
        ("bacth", 3, "own has no parameter 'bacth'; did you mean 'batch'"),
        ("outer", 3, r"own has no parameter 'outer' \(it has batch, depth, rate, lr"),
    ],
)
def test_what_is_refused_is_named_with_what_was_expected(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        METHOD.check({name: value})


def test_dataclasses_stand_for_their_fields() -> None:
    known = METHOD.parameters()
    assert list(known) == ["batch", "depth", "rate", "lr", "loss", "clip", "passes", "layer"]
    assert METHOD.check({}) == {name: parameter.default for name, parameter in known.items()}
    arguments = METHOD.arguments(METHOD.check({"depth": "5", "rate": 0.25}))
    assert arguments["outer"] == Outer(Inner(5), 0.25)
    assert list(arguments) == ["batch", "outer", "lr", "loss", "clip", "passes", "layer"]
    shown = known["depth"].to_json()
    assert (shown["type"], shown["low"], shown["high"], shown["description"]) == ("int", 1, 8, "levels")


def test_a_default_of_the_signature_wins_over_the_dataclass_s_own() -> None:
    own = Inner(depth=7)

    def other(run: Any, *, inner: Inner = own) -> Tensor:
        return torch.zeros(1)

    other.__annotations__["inner"] = Inner  # annotations are texts, and Inner is no global of other's making
    assert Method("other", other, "none", None, "none").parameters()["depth"].default == 7


def test_a_signature_that_declares_nothing_is_the_authors_mistake() -> None:
    def missing(run: Any, *, lr: float) -> Tensor:
        return torch.zeros(1)

    def strange(run: Any, *, sizes: list = []) -> Tensor:  # noqa: B006
        return torch.zeros(1)

    for mistake, name in ((missing, "lr"), (strange, "sizes")):
        with pytest.raises(TypeError, match=f"mistake: {name} needs a default and the type"):
            Method("mistake", mistake, "none", None, "none").parameters()


def test_limits_in_words() -> None:
    words = {
        str(limits) for limits in (at_least(1), above(0, at_most=1), within(0, 1), Limits(), one_of("a", "b", "c"))
    }
    assert words == {"at least 1", "above 0 and at most 1", "0 to 1", "", "a, b or c"}


# Every method.

EVERY = [(name, parameter) for name, method in methods().items() for parameter in method.parameters().values()]
NAMES = [f"{name}.{parameter.name}" for name, parameter in EVERY]
QUICK: dict[str, dict[str, Any]] = {
    "aaa": {"width": 4, "slots": 2, "climb_steps": 2, "candidates": 2, "batch": 4},
    "cbgan": {"pool": 8, "generator_width": 4, "candidates": 2, "batch": 4},
    "dm-uap": {"model_steps": 1, "data_steps": 1, "batch": 2},
    "gap": {"width": 4, "blocks": 1, "batch": 4},
    "nag": {"width": 4, "candidates": 2, "held_out": 4, "batch": 4},
    "sv-uap": {"batch": 4},
    "uap": {"steps": 2, "candidates": 3},
    **{name: {"batch": 4} for name in ("at-uap", "cosine-uap", "df-uap", "fg-uap", "gd-uap", "sgd-uap", "spgd", "sga")},
}
CHEAP = 64  # counts above it are left to those who have the memory and the time


@pytest.fixture(scope="module")
def victim() -> Victim:
    return small_victim()


def arguments(method: str) -> dict[str, Any]:
    source = GaussianPrior((32, 32)) if methods()[method].images == "driven" else None
    return {"method": method, "source": source, "budget": 16}


@pytest.mark.parametrize(("method", "parameter"), EVERY, ids=NAMES)
def test_every_parameter_is_declared_in_full(method: str, parameter: Parameter) -> None:
    assert parameter.text
    assert parameter.read(parameter.default) == parameter.default
    if parameter.kind in (int, float):
        assert parameter.low is not None
    if parameter.kind is float:
        assert parameter.high is not None


@pytest.mark.parametrize(("method", "parameter"), EVERY, ids=NAMES)
def test_every_value_is_within_its_range_or_refused_without_a_trace(
    method: str, parameter: Parameter, victim: Victim, tmp_path: Path
) -> None:
    wrong = 7 if parameter.kind is str else "seven"
    refused = 0
    for value in (0, -1, math.nan, 1e9, "0", "-1", "nan", "1e9", wrong, [], True):
        given = {**arguments(method), parameter.name: value}
        said = refusal(victim, given)
        if said is None:
            read = check_craft(victim, **given).params[parameter.name]
            assert read in parameter
            assert read is None or type(read) is parameter.kind
            continue
        refused += 1
        assert parameter.name in said
        with pytest.raises(UsageError):
            craft(victim, folder=tmp_path / "run", **given)
    assert refused >= 3
    assert not list(tmp_path.iterdir())


def refusal(victim: Victim, given: dict[str, Any]) -> str | None:
    """What the check says against these arguments of `craft`; None where it has nothing."""
    try:
        check_craft(victim, **given)
    except UsageError as error:
        return str(error)
    return None


def extremes(parameter: Parameter) -> list[Any]:
    """The ends of what is declared, where they cost little: just inside of an end that is open."""
    if parameter.kind is bool:
        return [False, True]
    if parameter.kind is str:
        return list(parameter.choices)
    low, high = parameter.low, parameter.high
    if parameter.kind is int:
        return [int(end) for end in (low, high) if end is not None and end <= CHEAP]
    assert low is not None and high is not None
    inside = 1e-6 * (high - low)
    return [low + parameter.low_open * inside, high - parameter.high_open * inside]


@pytest.mark.parametrize(("method", "parameter"), EVERY, ids=NAMES)
def test_every_cheap_end_of_a_range_runs_or_is_refused_before_the_folder(
    method: str, parameter: Parameter, victim: Victim, tmp_path: Path
) -> None:
    for i, value in enumerate(extremes(parameter)):
        folder = tmp_path / str(i)
        given = {**arguments(method), **QUICK.get(method, {}), parameter.name: value}
        if parameter.name == "prior" and value == "data":
            given["source"] = GaussianPrior((32, 32))
        if refusal(victim, given) is None:
            assert craft(victim, folder=folder, **given).delta.isfinite().all()
