"""What `uapgen gan bench` does: dataset x imbalance x method x seed, read from one TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UapgenError, UsageError, did_you_mean
from .gan_recipe import GanRecipe
from .recipe import Recipe

Made = TypeVar("Made")


@dataclass(frozen=True)
class Cell:
    imbalance: float
    method: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.imbalance:g}/{self.method}/{self.seed}"


@dataclass(frozen=True)
class Plan:
    """One benchmark. `gan` and `methods` are tables of `GanRecipe` fields; a method's win over the common ones.

    A value of theirs may itself be a table, imbalance -> value: `balance = { 1 = 5, 10 = 7.5, 100 = 10 }`.
    data: as `load_data` takes it; test: the path of its test part, where data is a path.
    n_max: images of the largest class, default as many as the smallest class of the full data has.
    samples: scored a GAN; reference: how many test images they are compared with, drawn once, default all.
    classifier: in the loop, trained on each long-tailed set; annotator: on all training images; cas: the recipe of the
        classification accuracy score, or None.
    """

    data: str
    imbalances: tuple[float, ...]
    seeds: tuple[int, ...]
    gan: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    classifier: Recipe
    annotator: Recipe
    cas: Recipe | None = None
    test: str | None = None
    size: int | None = None
    kind: str = "exp"
    n_max: int | None = None
    samples: int = 10_000
    reference: int | None = None

    def cells(self) -> Iterator[Cell]:
        """In the order in which they run."""
        for imbalance in self.imbalances:
            for seed in self.seeds:
                for method in self.methods:
                    yield Cell(imbalance, method, seed)

    def recipe(self, cell: Cell) -> GanRecipe:
        """Raises UsageError for fields and values that a `GanRecipe` does not have."""
        merged = {**self.gan, **self.methods[cell.method]}
        settings = {key: _at(value, cell.imbalance, key) for key, value in merged.items()}
        recipe = make(GanRecipe, settings, f"[method.{cell.method}]")
        recipe.check()
        return recipe


def load_plan(path: str | Path) -> Plan:
    """A plan from a TOML file, all of whose cells can run. Raises UsageError for anything that does not belong."""
    path = Path(path)
    try:
        held = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); expected a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML ({error})") from error
    methods = held.pop("method", {})
    recipes: dict[str, Any] = {
        name: make(Recipe, held.pop(name), f"[{name}]") for name in ("classifier", "annotator", "cas") if name in held
    }
    for name in ("classifier", "annotator"):
        recipes.setdefault(name, Recipe())
    for name in ("imbalances", "seeds"):
        if not isinstance(held.get(name), list) or not held[name]:
            raise UsageError(f"{path}: {name} = {held.get(name)!r}; expected a list of numbers")
        held[name] = tuple(held[name])
    if not methods or "data" not in held:
        raise UsageError(f"{path}: expected data = ..., and at least one [method.NAME]")
    plan = make(Plan, {"gan": {}, **held, **recipes, "methods": methods}, str(path))
    for recipe in recipes.values():
        recipe.check()
    for cell in plan.cells():
        plan.recipe(cell)
    return plan


def presets() -> dict[str, Path]:
    """Packaged plans by name."""
    found = files("uapgen.longtail") / "presets"
    return {Path(str(file)).stem: Path(str(file)) for file in found.iterdir() if str(file).endswith(".toml")}


def find_preset(name: str) -> Path:
    """Raises UsageError for a name that is none."""
    held = presets()
    if name not in held:
        raise UsageError(f"preset {name!r} is unknown{did_you_mean(name, held)}; expected {', '.join(sorted(held))}")
    return held[name]


def make(kind: type[Made], settings: dict[str, Any], where: str) -> Made:
    """A dataclass from a TOML table. Raises UsageError, naming the nearest field, for one that it does not have."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key, value in settings.items():
        if key not in known:
            raise UsageError(f"{where}: {key} is unknown{did_you_mean(key, known)}; expected {', '.join(known)}")
        if isinstance(value, list):
            settings = {**settings, key: tuple(value)}
    missing = [name for name, f in known.items() if _required(f) and name not in settings]
    if missing:
        raise UsageError(f"{where}: {missing[0]} is missing")
    try:
        return kind(**settings)
    except TypeError as error:
        raise UapgenError(f"{where}: {error}") from error


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _at(value: Any, imbalance: float, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    if f"{imbalance:g}" not in value:
        raise UsageError(f"{key} has no value for imbalance {imbalance:g}; it has some for {', '.join(value)}")
    return value[f"{imbalance:g}"]
