"""Plans: TOML files as frozen dataclasses, checked value by value, and the ones that lie in the package.

The dataclasses' own type hints say what is expected: numbers, texts, `tuple[X, ...]` (a list), `Literal`, `X | None`,
`dict`, and other dataclasses (a section). Of a field whose default is a dataclass, what the section leaves out is kept.
Metadata `key` is a field's name in the file, where it differs. `check()` of a dataclass, if it has one, is called.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import UsageError, did_you_mean

Made = TypeVar("Made")
NUMBERS = {int: (int,), float: (int, float)}
WORDS = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("true or false",) * 2,
}


def presets(kind: type) -> dict[str, Path]:
    """Packaged plans of a kind by name: presets/NAME.toml beside the kind's module."""
    folder = files(kind.__module__.rpartition(".")[0]) / "presets"
    found = (Path(str(file)) for file in folder.iterdir())
    return {file.stem: file for file in sorted(found) if file.suffix == ".toml"}


def find(kind: type, given: str | Path) -> Path:
    """A preset by its name, or the path itself: a Path, or a text that ends in .toml.

    Raises UsageError, naming the nearest, for a name that is none.
    """
    if isinstance(given, Path) or given.endswith(".toml"):
        return Path(given)
    held = presets(kind)
    if given not in held:
        raise UsageError(f"preset {given!r} is unknown{did_you_mean(given, held)}; expected {', '.join(held)}")
    return held[given]


def load(kind: type[Made], path: str | Path) -> Made:
    """The plan in a TOML file. Raises UsageError, naming file, section and key, for whatever is not one."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); expected a TOML file") from error
    return parse(kind, text, str(path))


def parse(kind: type[Made], text: str, where: str) -> Made:
    """`load` of a text; `where` stands in messages."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML ({error})") from error
    return make(kind, table, where)


def make(kind: type[Made], table: dict[str, Any], where: str, default: Made | None = None) -> Made:
    """A dataclass, checked, from a table; what the table leaves out is `default`'s. Raises as `load` does."""
    hints = get_type_hints(kind)
    known = {field.metadata.get("key", field.name): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: {key} is unknown{did_you_mean(key, known)}; expected {', '.join(known)}")
        field = known[key]
        values[field.name] = _value(value, hints[field.name], key, where, _default(field, default))
    missing = [key for key, field in known.items() if default is None and _required(field) and key not in table]
    if missing:
        raise UsageError(f"{where}: {missing[0]} is missing; expected {_words(hints[known[missing[0]].name])[0]}")
    made = kind(**values) if default is None else dataclasses.replace(default, **values)  # type: ignore[type-var]
    if hasattr(made, "check"):
        try:
            made.check()
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    return made


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any], of: Any = None) -> Any:
    """None where there is none."""
    if of is not None:
        return getattr(of, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _value(value: Any, hint: Any, key: str, where: str, default: Any = None) -> Any:
    """`value` as `hint` has it: lists as tuples, tables as dataclasses."""
    hint = _without_none(hint)
    if isinstance(value, dict) and dataclasses.is_dataclass(hint):
        return make(hint, value, f"{where} [{key}]", default)  # type: ignore[arg-type]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(each, inner[0], key, where) for each in value)
    if origin is dict and isinstance(value, dict):
        return {name: _value(held, inner[1], f"{key}.{name}", where) for name, held in value.items()}
    if origin is Literal and value not in inner:
        near = did_you_mean(str(value), inner)
        raise UsageError(f"{where}: {key} {value!r} is unknown{near}; expected {', '.join(inner)}")
    if hint is Any or origin is Literal or type(value) in NUMBERS.get(hint, (hint,)):  # true is no number
        return value
    raise UsageError(f"{where}: {key} = {value!r}; expected {_words(hint)[0]}")


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return hint


def _words(hint: Any) -> tuple[str, str]:
    """What a value of that type is called, one and several."""
    hint = _without_none(hint)
    if get_origin(hint) is tuple:
        several = _words(get_args(hint)[0])[1]
        return f"a list of {several}", f"lists of {several}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}", "names"
    return WORDS.get(hint, ("a section", "sections"))
