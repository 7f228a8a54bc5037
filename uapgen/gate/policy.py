"""A robustness policy: what a pipeline demands of results, read from TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from ..errors import UsageError
from ..evaluation.stored import Metric
from ..schema import APART, LARGEST, Range, make

LIMITS = ("max", "min", "max_increase", "max_decrease")
Share = Annotated[float | None, Range(0, 1, "a share in 0..1")]
EXPECTED = "expected max, min, or a baseline with max_increase or max_decrease"


@dataclass(frozen=True)
class Check:
    """One demand: `metric` of every row that the globs `victim`, `method`, `defence` (and `eps_255`) select.

    Shares are in [0,1]. Exactly one limit is set: `max` or `min` of the rate itself, or `max_increase` or
    `max_decrease` against the same row of the results file `baseline`. `confidence` is that of the two-sided Wilson
    interval whose unfavourable end is compared; `min_images` the least number of images that the check accepts.
    """

    metric: Metric
    victim: str = "*"
    method: str = "*"
    defence: str = "*"
    eps_255: Annotated[float | None, Range(0, 255, "levels in 0..255")] = None
    max: Share = None
    min: Share = None
    baseline: Path | None = None
    max_increase: Share = None
    max_decrease: Share = None
    confidence: Annotated[float, Range(0.5, 1, "a share in [0.5, 1)", below=True)] = 0.95
    min_images: Annotated[int, Range(1, LARGEST, "a number of images from 1 on")] = 1
    name: str = ""

    def check(self) -> None:
        """Raises UsageError unless there is exactly one limit, with a baseline where it is a change."""
        limits = [name for name in LIMITS if getattr(self, name) is not None]
        if len(limits) != 1 or (self.baseline is not None) != (limits[0] in LIMITS[2:]):
            raise UsageError(f"it has {' and '.join(limits) or 'no limit'}; {EXPECTED}")

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
    """What a pipeline demands: every check on every row that it selects.

    `on_inconclusive`: "separate" gives inconclusive checks an exit code of their own (4), "fail" counts them so. `path`
    is the file that it was read from.
    """

    checks: tuple[Check, ...] = field(default=(), metadata={"key": "check"})
    on_inconclusive: Literal["separate", "fail"] = "separate"
    schema: Literal["uapgen.policy/1"] = "uapgen.policy/1"
    path: Path | None = field(default=None, metadata=APART)

    def check(self) -> None:
        """Raises UsageError for a policy without checks, which would pass anything."""
        if not self.checks:
            raise UsageError("it demands nothing; expected at least one [[check]] table")


def load_policy(path: str | Path) -> Policy:
    """The policy in a TOML file; baselines are relative to it. Raises UsageError, naming the file and the check."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOML and Unicode errors are ValueErrors
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"policy {path} cannot be read ({reason}); expected TOML with [[check]] tables") from error
    policy = make(Policy, table, f"policy {path}")
    checks = tuple(replace(c, baseline=path.parent / c.baseline) if c.baseline else c for c in policy.checks)
    return replace(policy, checks=checks, path=path)


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
