"""What `uapgen gan classify` runs: a TOML file, checked, and the cells that follow from it."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import UsageError, did_you_mean
from ..recipe import Recipe
from .cells import MODES, TRICKS, Cell, parse_tricks
from .ensemble import UNCONDITIONED, GanSettings
from .source import check_shares
from .training import PUBLISHED
from .weights import METHODS


@dataclass(frozen=True)
class Grid:
    """Table 1 of the report: every mode with every combination of tricks, of `psi`, `threshold` and `pad`.

    tries: see `ClassifierFilter`.
    """

    modes: tuple[str, ...] = MODES
    tricks: tuple[str, ...] = ("none", "transform", "filter", "truncation", "transform+filter", "+".join(TRICKS))
    psi: float = 1.5
    threshold: float = 0.9
    tries: int = 50
    pad: int = 4


@dataclass(frozen=True)
class Ensembles:
    """Table 3: `sizes` with every weighting, on the fly with `tricks`; `shares`, one for each generator, are further
    rows of the conditioned ones.
    """

    sizes: tuple[int, ...] = (1, 2, 3)
    methods: tuple[str, ...] = (UNCONDITIONED, *METHODS)
    tricks: str = "transform+filter"
    shares: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Samples:
    """How much of each source the metrics see: `images` for the Fréchet distance, `pairs` a class for MS-SSIM;
    `figure` images of each of `figure_classes` classes for the t-SNE.
    """

    images: int = 5000
    pairs: int = 200
    figure: int = 256
    figure_classes: int = 5


@dataclass(frozen=True)
class Plan:
    """Everything that decides the numbers. data, root, num_classes: see `load_data`; test: the test part, where `data`
    is a path. images: of a fixed set, and of an epoch on the fly; 0: as many as real.
    """

    data: str = "cifar10"
    test: str | None = None
    size: int = 32
    root: str | None = None
    num_classes: int | None = None
    seeds: tuple[int, ...] = (0,)
    images: int = 0
    gan: GanSettings = field(default_factory=GanSettings)
    classifier: Recipe = PUBLISHED
    grid: Grid = field(default_factory=Grid)
    ensembles: Ensembles = field(default_factory=Ensembles)
    samples: Samples = field(default_factory=Samples)

    def cells(self) -> list[Cell]:
        """All cells, each once."""
        found = [Cell(mode, parse_tricks(text)) for mode in self.grid.modes for text in self.grid.tricks]
        tricks = parse_tricks(self.ensembles.tricks)
        for size in self.ensembles.sizes:
            for method in self.ensembles.methods if size > 1 else (UNCONDITIONED,):
                found.append(Cell("on-the-fly", tricks, size, method))
                extra = [s for s in self.ensembles.shares if len(s) == size and method != UNCONDITIONED]
                found += [Cell("on-the-fly", tricks, size, method, shares) for shares in extra]
        return list(dict.fromkeys(found))


def load_plan(path: str | Path) -> Plan:
    """The plan in a TOML file. Raises UsageError, naming file and key, for whatever is not one."""
    try:
        return parse_plan(Path(path).read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); expected a TOML file") from error


def presets() -> list[str]:
    """Names of the plans inside the package."""
    return sorted(file.name.removesuffix(".toml") for file in files(__package__).iterdir() if file.name[-5:] == ".toml")


def preset(name: str) -> Plan:
    """A plan of the package by name. Raises UsageError for an unknown one."""
    if name not in presets():
        raise UsageError(f"preset {name!r} is unknown{did_you_mean(name, presets())}; expected {', '.join(presets())}")
    return parse_plan((files(__package__) / f"{name}.toml").read_text(), f"preset {name}")


def parse_plan(text: str, where: str) -> Plan:
    """See `load_plan`; `where` stands in messages."""
    try:
        plan: Plan = _filled(Plan(), tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    for mode in plan.grid.modes:
        if mode not in MODES:
            raise UsageError(f"{where}: mode {mode!r} is unknown; expected {' or '.join(MODES)}")
    for method in plan.ensembles.methods:
        if method not in (UNCONDITIONED, *METHODS):
            known = ", ".join((UNCONDITIONED, *METHODS))
            raise UsageError(f"{where}: weighting {method!r} is unknown; expected {known}")
    for shares in plan.ensembles.shares:
        if not isinstance(shares, tuple):
            raise UsageError(f"{where}: ensembles.shares holds {shares!r}; expected lists, such as [[0.75, 0.25]]")
        check_shares(shares, len(shares))
    if not plan.seeds or any(size < 1 for size in plan.ensembles.sizes):
        raise UsageError(f"{where}: seeds {plan.seeds}, sizes {plan.ensembles.sizes}; expected a seed, sizes from 1")
    if not plan.cells():
        raise UsageError(f"{where} asks for nothing; give grid.modes and grid.tricks, or ensembles.sizes")
    plan.classifier.check()
    return plan


def _filled(section: Any, given: dict[str, Any], where: str) -> Any:
    """A copy of a dataclass with the values of a TOML table; every key must be there, every value of its kind."""
    held = {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in held:
            hint = did_you_mean(key, held) or f"; expected {', '.join(held)}"
            raise UsageError(f"{where}: no key {key!r}{hint}")
        default = held[key]
        if dataclasses.is_dataclass(default) and isinstance(value, dict):
            values[key] = _filled(default, value, f"{where} [{key}]")
        elif _fits(value, default):
            values[key] = _frozen(value)
        else:
            raise UsageError(f"{where}: {key} = {value!r}; expected a value such as {default!r}")
    return dataclasses.replace(section, **values)


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        return not isinstance(value, (dict, list))
    if isinstance(default, tuple):
        kinds = {type(entry) for entry in default}
        return isinstance(value, list) and all(not kinds or any(_fits(e, kind()) for kind in kinds) for e in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number if isinstance(default, float) else type(value) is type(default)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
