"""What `uapgen gan gold` is to measure, from a TOML file: one section for each part, checked before anything runs."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ...errors import UapgenError, UsageError, did_you_mean
from .active import Active
from .capacity import Fitting
from .networks import Kind, networks
from .rejection import check_percentile
from .training import Training

PRESETS = files(__package__) / "presets"
KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
Section = TypeVar("Section")


@dataclass(frozen=True)
class Data:
    """spec: blobs, or what `load_data` takes. test: another spec for the test part, where `spec` is a path.

    resize: pixels of the training images, out of which windows of 32 are cut. test_only: the test part is used for
    training too, as the paper does with LSUN. points: of either part of the blobs.
    """

    spec: str
    test: str = ""
    resize: int = 32
    test_only: bool = False
    points: int = 1000


@dataclass(frozen=True)
class Nets:
    """See `networks`."""

    kind: Kind
    width: int = 64
    latent_dim: int = 100

    def check(self) -> None:
        networks(self.kind, width=self.width, latent_dim=self.latent_dim)


@dataclass(frozen=True)
class Rejection:
    """One row for each of `percentiles`; `per_class` samples are accepted, `calibration` ones set w and M."""

    percentiles: tuple[float, ...]
    per_class: int = 5000
    batch: int = 100
    calibration: int = 50_000
    tries: int = 10_000

    def check(self) -> None:
        """Raises UsageError for percentiles outside 0..100 and for numbers below 1."""
        for percentile in self.percentiles:
            check_percentile(percentile)
        if min(self.per_class, self.batch, self.calibration, self.tries) < 1:
            raise UsageError(f"rejection sampling with {self}; expected positive numbers")


@dataclass(frozen=True)
class Plan:
    """A whole experiment; a part without its section is not run."""

    data: Data
    networks: Nets
    training: Training
    fitting: Fitting
    seeds: int
    reweighting: bool
    rejection: Rejection | None
    active: Active | None


def load_plan(text: str, name: str) -> Plan:
    """The plan in TOML `text`, of which messages say that it is `name`. Raises UsageError, naming section and key."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not TOML ({error})") from error
    known = ("data", "networks", "training", "fitting", "rejection", "active", "seeds", "reweighting")
    _refuse_unknown(table, known, name)
    plan = Plan(
        data=_section(Data, table, "data", name),
        networks=_section(Nets, table, "networks", name),
        training=_section(Training, table, "training", name),
        fitting=_section(Fitting, {"fitting": {}, **table}, "fitting", name),
        seeds=_value(table.get("seeds", 5), "int", f"{name}: seeds"),
        reweighting=_value(table.get("reweighting", True), "bool", f"{name}: reweighting"),
        rejection=_section(Rejection, table, "rejection", name) if "rejection" in table else None,
        active=_section(Active, table, "active", name) if "active" in table else None,
    )
    if (plan.data.spec == "blobs") != (plan.networks.kind == "points"):
        raise UsageError(f"{name}: data {plan.data.spec!r} does not go with networks {plan.networks.kind!r}")
    return plan


def presets() -> list[str]:
    """Names of the plans that are installed with uapgen."""
    return sorted(file.name.removesuffix(".toml") for file in PRESETS.iterdir() if file.name.endswith(".toml"))


def find_plan(given: str | Path) -> Plan:
    """A preset by its name, or a TOML file by its path. Raises UsageError for neither."""
    name = str(given)
    if name in presets():
        return load_plan((PRESETS / f"{name}.toml").read_text(), f"preset {name}")
    if not name.endswith(".toml"):
        hint = did_you_mean(name, presets()) or f"; expected {', '.join(presets())}, or a .toml file"
        raise UsageError(f"no preset {name!r}{hint}")
    try:
        return load_plan(Path(name).read_text(), name)
    except (OSError, UnicodeDecodeError) as error:
        raise UapgenError(f"{name} cannot be read ({error}); expected a .toml file") from error


def _section(kind: type[Section], table: dict[str, Any], key: str, name: str) -> Section:
    held = table.get(key)
    if not isinstance(held, dict):
        raise UsageError(f"{name} has no section [{key}]; see the presets for an example")
    types = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(held, types, f"{name} [{key}]")
    values = {k: _value(v, types[k], f"{name} [{key}] {k}") for k, v in held.items()}
    try:
        section = kind(**values)
    except TypeError as error:
        raise UsageError(f"{name} [{key}] is incomplete: {str(error).split('__init__() ')[-1]}") from error
    if hasattr(section, "check"):
        section.check()
    return section


def _value(value: Any, kind: str, where: str) -> Any:
    if kind == "tuple[float, ...]":
        if not isinstance(value, list):
            raise UsageError(f"{where} is {value!r}; expected a list of numbers")
        return tuple(_value(each, "float", where) for each in value)
    allowed = KINDS.get(kind, (str,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "bool"):
        raise UsageError(f"{where} is {value!r}; expected {allowed[-1].__name__}")
    return value


def _refuse_unknown(held: dict[str, Any], known: Any, where: str) -> None:
    for key in held:
        if key not in known:
            raise UsageError(f"{where}: unknown {key!r}{did_you_mean(key, known) or f'; expected {list(known)}'}")
