"""Dataclasses from tables and back: what is kept, what is refused and in which words, and what the schema says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from uapgen.errors import UapgenError, UsageError
from uapgen.evaluation.intervals import Rate
from uapgen.schema import APART, FLAT, SOURCE, Range, Rules, make, to_json
from uapgen.schema.describe import json_schema

OPEN = Rules(closed=False, error=UapgenError)
Share = Annotated[float | None, Range(0, 1, "a share in 0..1")]


@dataclass(frozen=True)
class Inner:
    """A section."""

    size: int = 3
    name: str = "inner"
    held: dict[str, Any] = field(default_factory=dict, metadata=SOURCE, compare=False)


@dataclass(frozen=True)
class Spread:
    left: int
    right: bool


@dataclass(frozen=True)
class Document:
    """A document of every kind of entry.

    What stands here is not in the schema.
    """

    kind: Literal["a", "b"] = field(metadata={"key": "class"})
    spread: Spread = field(metadata=FLAT)
    numbers: tuple[float, ...]
    rate: Rate | None
    sections: tuple[Inner, ...] = ()
    share: Share = None
    least: Annotated[int, Range(1, 9, "a number in 1..9")] = 1
    by_name: dict[str, float | None] = field(default_factory=dict)
    inner: Inner = Inner(size=7)
    file: Path | None = None
    where: str = field(default="nowhere", metadata=APART)

    def check(self) -> None:
        if len(self.numbers) > 3:
            raise UsageError("too many numbers")


TABLE: dict[str, Any] = {"class": "a", "left": 1, "right": True, "numbers": [1, 2.5]}


def read(**changes: Any) -> Document:
    return make(Document, {**TABLE, **changes}, "file")


def test_a_table_becomes_a_dataclass_and_a_table_again() -> None:
    found = read(rate={"count": 1, "n": 4, "rate": 0.25}, inner={"name": "x"}, by_name={"k": None}, file="a/b.json")
    assert (found.kind, found.spread, found.numbers, found.rate) == ("a", Spread(1, True), (1, 2.5), Rate(1, 4))
    assert found.inner == Inner(size=7, name="x")  # what the section leaves out is the default's
    assert (found.by_name, found.file, found.where) == ({"k": None}, Path("a/b.json"), "nowhere")
    table = to_json(found)
    assert list(table)[:4] == ["class", "left", "right", "numbers"]
    assert "where" not in table
    assert table["rate"]["count"] == 1
    assert make(Document, table, "file") == found


def test_what_was_read_is_what_is_written() -> None:
    table = {**TABLE, "rate": None, "sections": [{"size": 1, "later": [1]}]}
    assert to_json(make(Document, table, "file", rules=OPEN))["sections"] == [{"size": 1, "later": [1]}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clas": "a"}, "file: clas is unknown; did you mean 'class'"),
        ({"class": "c"}, "class 'c' is unknown; expected a, b"),
        ({"left": True}, "left = True; expected an integer"),
        ({"left": None}, "left is missing; expected an integer"),
        ({"numbers": 3}, "numbers = 3; expected a list of numbers"),
        ({"numbers": [float("nan")]}, "numbers = nan; expected a number"),
        ({"numbers": [10**400]}, "expected a number"),
        ({"numbers": [1, 2, 3, 4]}, "file: too many numbers"),
        ({"sections": [{}, {"size": "x"}]}, r"file \[sections 2\]: size = 'x'; expected an integer"),
        ({"inner": 3}, "inner = 3; expected a section"),
        ({"share": 40}, "share = 40; expected a share in 0..1: did you mean 0.4"),
        ({"share": -0.1}, "expected a share in 0..1$"),
        ({"least": 0}, "least = 0; expected a number in 1..9"),
        ({"least": 2.0}, "expected a number in 1..9"),
        ({"by_name": {"k": "x"}}, "by_name.k = 'x'; expected a number"),
        ({"rate": {"count": 5, "n": 4, "rate": 1.25}}, "rate counts 5 of 4"),
        ({"rate": {"count": 3, "n": 4, "rate": 0.5}}, "rate is stated as 0.5, and 3 of 4 is 0.75"),
        ({"where": "here"}, "where is unknown"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(**changes)


def test_open_documents_may_say_more_and_raise_their_own_error() -> None:
    assert make(Inner, {"size": 4, "later": 1}, "file", rules=OPEN).size == 4
    with pytest.raises(UapgenError) as error:
        make(Inner, {"size": "x"}, "file", rules=OPEN)
    assert error.value.exit_code == 3
    with pytest.raises(UapgenError, match="file = 3; expected a section"):
        make(Inner, 3, "file", rules=OPEN)


def test_the_schema_says_what_is_checked() -> None:
    found = json_schema(Document, "uapgen.test/1", closed=True)
    assert (found["title"], found["$id"]) == ("uapgen.test/1", "urn:uapgen:test:1")
    assert found["description"] == "A document of every kind of entry."
    assert found["required"] == ["class", "left", "right", "numbers"]
    assert found["additionalProperties"] is False
    held = found["properties"]
    assert held["class"] == {"enum": ["a", "b"]}
    assert held["least"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert held["share"] == {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}
    assert held["sections"] == {"type": "array", "items": {"$ref": "#/$defs/Inner"}}
    assert held["rate"] == {"anyOf": [{"$ref": "#/$defs/Rate"}, {"type": "null"}]}
    assert "where" not in held
    assert set(found["$defs"]) == {"Inner", "Rate"}
    assert set(found["$defs"]["Inner"]["properties"]) == {"size", "name"}
