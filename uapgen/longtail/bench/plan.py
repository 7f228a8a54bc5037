"""What `uapgen gan bench` does: dataset x imbalance x method x seed, read from one TOML file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...errors import UsageError
from ...schema import make
from ..classifier.recipe import Recipe
from ..gan_recipe import GanRecipe


@dataclass(frozen=True)
class BenchCell:
    """One GAN of a benchmark."""

    imbalance: float
    method: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.imbalance:g}/{self.method}/{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """The first entries of its record."""
        return {"key": self.key, "imbalance": self.imbalance, "method": self.method, "seed": self.seed}


@dataclass(frozen=True)
class BenchPlan:
    """One benchmark. `gan` and `methods` ([method.NAME] in the file) are tables of `GanRecipe` fields; a method's win.

    A value of theirs may itself be a table, imbalance -> value: `balance = { 1 = 5, 10 = 7.5, 100 = 10 }`.
    data: as `load_data` takes it; test: the path of its test part, where data is a path.
    n_max: images of the largest class, default as many as the smallest class of the full data has.
    samples: scored a GAN; reference: how many test images they are compared with, drawn once, default all.
    classifier: in the loop, trained on each long-tailed set; annotator: on all training images; cas: the recipe of the
        classification accuracy score, or None.
    """

    SCHEMA: ClassVar[str] = "uapgen.bench-plan/1"

    data: str
    imbalances: tuple[float, ...]
    seeds: tuple[int, ...]
    methods: dict[str, dict[str, Any]] = field(metadata={"key": "method"})
    gan: dict[str, Any] = field(default_factory=dict)
    classifier: Recipe = field(default_factory=Recipe)
    annotator: Recipe = field(default_factory=Recipe)
    cas: Recipe | None = None
    test: str | None = None
    size: int | None = None
    kind: str = "exp"
    n_max: int | None = None
    samples: int = 10_000
    reference: int | None = None

    def cells(self) -> Iterator[BenchCell]:
        """In the order in which they run."""
        for imbalance in self.imbalances:
            for seed in self.seeds:
                for method in self.methods:
                    yield BenchCell(imbalance, method, seed)

    def recipe(self, cell: BenchCell) -> GanRecipe:
        """Raises UsageError for fields and values that a `GanRecipe` does not have."""
        merged = {**self.gan, **self.methods[cell.method]}
        settings = {key: _at(value, cell.imbalance, key) for key, value in merged.items()}
        return make(GanRecipe, settings, f"[method.{cell.method}]")

    def check(self) -> None:
        """Raises UsageError unless there are cells, and all of them can run."""
        if not self.imbalances or not self.seeds or not self.methods:
            given = f"imbalances {self.imbalances}, seeds {self.seeds}, methods {tuple(self.methods)}"
            raise UsageError(f"{given}; expected at least one of each")
        for cell in self.cells():
            self.recipe(cell)


def _at(value: Any, imbalance: float, key: str) -> Any:
    if not isinstance(value, dict):
        return value
    if f"{imbalance:g}" not in value:
        raise UsageError(f"{key} has no value for imbalance {imbalance:g}; it has some for {', '.join(value)}")
    return value[f"{imbalance:g}"]
