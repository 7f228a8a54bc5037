"""Documents as frozen dataclasses: read, checked and written by their type hints alone.

Plans and policies (TOML), cards, results and comparisons (JSON) all go through `make` and `to_json`. A dataclass's own
hints say what is expected: int, float, str, bool, Path, `tuple[X, ...]` (a list), `Literal`, `X | None`, `Any`,
`dict[str, X]`, other dataclasses (a section), and `Annotated` with a `Range`. An entry that may be null may be missing.
Of a field whose default is a dataclass, what the section leaves out is kept.

Metadata `key` is a field's name in the file, where it differs; FLAT says that the entries of a field, itself a
dataclass, stand among those of the one that has it; SOURCE, that a field keeps the table as it was read, which is then
what is written again; APART, that no file has the field. `check()` of a dataclass, if it has one, is called and may
raise UapgenError. A class with `from_json`, `to_json` and `json_schema` of its own is asked for them.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import UapgenError, UsageError, did_you_mean

Made = TypeVar("Made")
NUMBERS = {int: (int,), float: (int, float)}
WORDS = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    bool: ("true or false",) * 2,
}
LARGEST = sys.float_info.max  # an integer beyond it has no float
FLAT = {"flat": True}
SOURCE = {"source": True}
APART = {"apart": True}
LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True)
class Range:
    """The bounds of a number; an end that is `above` or `below` is not itself a value. `words` say all of it."""

    low: float
    high: float
    words: str
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def hint(self, value: float) -> str:
        """What was meant, where per cent stand for a share."""
        return f": did you mean {value / 100:g}?" if self.high == 1 and 1 < value <= 100 else ""

    def json_schema(self) -> dict[str, float]:
        return {
            "exclusiveMinimum" if self.above else "minimum": self.low,
            "exclusiveMaximum" if self.below else "maximum": self.high,
        }


@dataclass(frozen=True)
class Rules:
    """How a document is read: `closed` ones have no other keys than their fields; `error` is what is raised."""

    closed: bool = True
    error: type[UapgenError] = UsageError


def make(kind: type[Made], table: Any, where: str, default: Made | None = None, rules: Rules | None = None) -> Made:
    """The dataclass `kind`, checked, from a table; what the table leaves out is `default`'s.

    Raises `rules.error` (UsageError), naming `where`, section and key, for whatever is not one.
    """
    rules = rules or Rules()
    if not isinstance(table, Mapping):
        raise rules.error(f"{where} = {_shown(table)}; expected a section")
    hints = hints_of(kind)  # type: ignore[arg-type]
    known = {key_of(field): field for field in fields_of(kind) if not _spread(field)}
    values: dict[str, Any] = {field.name: dict(table) for field in fields_of(kind) if field.metadata.get("source")}
    for field in fields_of(kind):
        if field.metadata.get("flat"):
            values[field.name] = _value(table, hints[field.name], "", where, Rules(False, rules.error))
    for key, value in table.items():
        if key in known:
            field = known[key]
            if value is not None or optional(hints[field.name]):  # null is as good as nothing
                values[field.name] = _value(value, hints[field.name], key, where, rules, _default(field, default))
        elif rules.closed and key not in (names := keys_of(kind)):
            raise rules.error(f"{where}: {key} is unknown{did_you_mean(key, names)}; expected {', '.join(names)}")
    for key, field in known.items():
        if default is None and required(field) and field.name not in values:
            if not optional(hints[field.name]):
                raise rules.error(f"{where}: {key} is missing; expected {_words(hints[field.name])[0]}")
            values[field.name] = None
    made = kind(**values) if default is None else dataclasses.replace(default, **values)  # type: ignore[type-var]
    if hasattr(made, "check"):
        try:
            made.check()
        except UapgenError as error:
            raise rules.error(f"{where}: {error}") from error
    return made


def to_json(value: Any) -> Any:
    """What `make` reads: tables with the fields in their order, lists, and whatever JSON has itself."""
    if isinstance(value, Mapping):
        return {key: to_json(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(held) for held in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    if not dataclasses.is_dataclass(value):
        return str(value) if isinstance(value, Path) else value
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if field.metadata.get("source"):
            return held
        if not field.metadata.get("apart"):
            found |= to_json(held) if field.metadata.get("flat") else {key_of(field): to_json(held)}
    return found


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The type hints of a dataclass, with what `Annotated` says."""
    return get_type_hints(kind, include_extras=True)


def fields_of(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _spread(field: dataclasses.Field[Any]) -> bool:
    return any(field.metadata.get(word) for word in ("flat", "source", "apart"))


def keys_of(kind: Any) -> list[str]:
    """What a file of `kind` may have, in order."""
    found: list[str] = []
    for field in fields_of(kind):
        if field.metadata.get("flat"):
            inner = bare(hints_of(kind)[field.name])[0]
            found += inner.json_schema()["properties"] if hasattr(inner, "json_schema") else keys_of(inner)
        elif not _spread(field):
            found.append(key_of(field))
    return found


def key_of(field: dataclasses.Field[Any]) -> str:
    """What the file calls a field."""
    return str(field.metadata.get("key", field.name))


def required(field: dataclasses.Field[Any]) -> bool:
    """Whether a table must have it: there is no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any], of: Any = None) -> Any:
    """None where there is none."""
    if of is not None:
        return getattr(of, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _value(value: Any, hint: Any, key: str, where: str, rules: Rules, default: Any = None) -> Any:
    """`value` as `hint` has it: lists as tuples, tables as dataclasses."""
    if value is None and optional(hint):
        return None
    hint, limits = bare(hint)
    inside = f"{where} [{key}]" if key else where
    if hasattr(hint, "from_json"):
        try:
            return hint.from_json(value)
        except ValueError as error:
            raise rules.error(f"{where}: {key} {error}") from error
    if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
        return make(hint, value, inside, default, rules)  # type: ignore[arg-type]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        sections = dataclasses.is_dataclass(bare(inner[0])[0])
        names = [f"{key} {number}" if sections else key for number in range(1, len(value) + 1)]
        return tuple(_value(each, inner[0], name, where, rules) for name, each in zip(names, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {name: _value(held, inner[1], f"{key}.{name}", where, rules) for name, held in value.items()}
    if origin is Literal and value not in inner:
        near = did_you_mean(str(value), inner)
        raise rules.error(f"{where}: {key} {_shown(value)} is unknown{near}; expected {', '.join(inner)}")
    if hint is Path and isinstance(value, str):
        return Path(value)
    fits = hint is Any or origin is Literal or type(value) in NUMBERS.get(hint, (hint,))  # true is no number
    if fits and hint in NUMBERS and not -LARGEST <= value <= LARGEST:  # nan is in no range
        fits = False
    if not fits or (limits and not limits.holds(value)):
        expected = limits.words + (limits.hint(value) if fits else "") if limits else _words(hint)[0]
        raise rules.error(f"{where}: {key} = {_shown(value)}; expected {expected}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def optional(hint: Any) -> bool:
    """Whether null is a value."""
    if get_origin(hint) is Annotated:
        return optional(get_args(hint)[0])
    return hint is Any or (get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint))


def bare(hint: Any) -> tuple[Any, Range | None]:
    """A hint without `None`, and the range that an `Annotated` gives."""
    limits = None
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        limits = next((note for note in notes if isinstance(note, Range)), None)
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return (hint, limits) if get_origin(hint) is not Annotated else bare(hint)


def _words(hint: Any) -> tuple[str, str]:
    """What a value of that type is called, one and several."""
    hint, limits = bare(hint)
    if limits:
        return limits.words, "numbers"
    if get_origin(hint) is tuple:
        several = _words(get_args(hint)[0])[1]
        return f"a list of {several}", f"lists of {several}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}", "names"
    return WORDS.get(hint, ("a section", "sections"))
