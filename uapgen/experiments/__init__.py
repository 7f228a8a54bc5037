"""Plans: TOML files as frozen dataclasses (see `uapgen.schema`), and the ones that lie in the package."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from ..errors import UsageError, did_you_mean
from ..schema import make

Made = TypeVar("Made")


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
    """`load` of a text; `where` stands in messages. A file may say of which schema it is, in `schema`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML ({error})") from error
    known = getattr(kind, "SCHEMA", None)
    if (found := table.pop("schema", known)) != known:
        raise UsageError(f"{where} has schema {found!r}; expected {known!r}")
    return make(kind, table, where)
