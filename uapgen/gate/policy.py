"""A robustness policy: what a pipeline demands of results, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import UsageError, did_you_mean
from ..evaluation.document import METRICS

ON_INCONCLUSIVE = ("separate", "fail")
LIMITS = ("max", "min", "max_increase", "max_decrease")
EXPECTED = "expected max, min, or a baseline with max_increase or max_decrease"


@dataclass(frozen=True)
class Check:
    """One demand: `metric` of every row that the globs `victim`, `method`, `defence` (and `eps_255`) select.

    Shares are in [0,1]. Exactly one limit is set: `max` or `min` of the rate itself, or `max_increase` or
    `max_decrease` against the same row of the results file `baseline`. `confidence` is that of the two-sided Wilson
    interval whose unfavourable end is compared; `min_images` the least number of images that the check accepts.
    """

    metric: str
    victim: str = "*"
    method: str = "*"
    defence: str = "*"
    eps_255: float | None = None
    max: float | None = None
    min: float | None = None
    baseline: Path | None = None
    max_increase: float | None = None
    max_decrease: float | None = None
    confidence: float = 0.95
    min_images: int = 1
    name: str = ""

    @property
    def bound(self) -> str:
        """`fooling_rate <= 40.0%`, for tables and test names."""
        if self.max is not None:
            return f"{self.metric} <= {_percent(self.max)}"
        if self.min is not None:
            return f"{self.metric} >= {_percent(self.min)}"
        word, limit = ("rise", self.max_increase) if self.max_increase is not None else ("fall", self.max_decrease)
        return f"{word} of {self.metric} <= {_percent(limit or 0.0)}"


@dataclass(frozen=True)
class Policy:
    """`on_inconclusive`: "separate" gives inconclusive checks an exit code of their own (4), "fail" counts them so."""

    checks: tuple[Check, ...]
    on_inconclusive: str = "separate"
    path: Path | None = None


def load_policy(path: str | Path) -> Policy:
    """The policy in a TOML file; baselines are relative to it. Raises UsageError, naming the file and the check."""
    path = Path(path)
    try:
        held = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOML and Unicode errors are ValueErrors
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"policy {path} cannot be read ({reason}); expected TOML with [[check]] tables") from error
    try:
        return _policy(held, path)
    except UsageError as error:
        raise UsageError(f"policy {path}: {error}") from error


def _policy(held: dict[str, Any], path: Path) -> Policy:
    _known(held, ("check", "on_inconclusive"), "")
    mode = held.get("on_inconclusive", "separate")
    if mode not in ON_INCONCLUSIVE:
        raise UsageError(f"on_inconclusive = {mode!r}; expected {' or '.join(map(repr, ON_INCONCLUSIVE))}")
    tables = held.get("check")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError("it demands nothing; expected at least one [[check]] table")
    return Policy(tuple(_check(table, number, path) for number, table in enumerate(tables, 1)), mode, path)


def _check(table: dict[str, Any], number: int, path: Path) -> Check:
    where = f"check {number}: "
    _known(table, [field.name for field in fields(Check)], where)
    values = dict(table)
    for key in ("metric", "victim", "method", "defence", "name", "baseline"):
        if key in values and not isinstance(values[key], str):
            raise UsageError(f"{where}{key} = {values[key]!r} is no text")
    metric = values.get("metric")
    if metric not in METRICS:
        said = f"metric {metric!r} is unknown" if metric else "it names no metric"
        raise UsageError(f"{where}{said}{did_you_mean(str(metric), METRICS)}; known are {', '.join(METRICS)}")
    for key in (*LIMITS, "confidence", "eps_255"):
        if key in values:
            values[key] = _number(values[key], where, key)
    limits = [key for key in LIMITS if key in values]
    if len(limits) != 1 or ("baseline" in values) != (limits[0] in LIMITS[2:]):
        raise UsageError(f"{where}it has {' and '.join(limits) or 'no limit'}; {EXPECTED}")
    least = values.get("min_images", 1)
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        raise UsageError(f"{where}min_images = {least!r} is no number of images")
    if "baseline" in values:
        values["baseline"] = path.parent / values["baseline"]
    return Check(**values)


def _number(value: Any, where: str, key: str) -> float:
    top = 255.0 if key == "eps_255" else 1.0
    # A comparison takes integers of any size, and nan is in no range; math.isfinite would overflow.
    fits = not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= top
    if not fits or (key == "confidence" and not 0.5 <= value < 1):
        hint = f": did you mean {value / 100:g}?" if isinstance(value, int | float) and 1 < value <= 100 else ""
        expected = {"eps_255": "levels in 0..255", "confidence": "a share in [0.5, 1)"}.get(key, "a share in 0..1")
        raise UsageError(f"{where}{key} = {value!r}; expected {expected}{hint if key != 'eps_255' else ''}")
    return float(value)


def _known(table: Mapping[str, Any], names: Any, where: str) -> None:
    for key in table:
        if key not in names:
            raise UsageError(f"{where}key {key!r} is unknown{did_you_mean(key, names)}")


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
