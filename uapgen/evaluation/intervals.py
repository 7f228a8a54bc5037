"""A share with the counts that it came from and its 95% interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST = 2**53  # images: integers up to here are exact as floats
Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution


def value_of(rate: Rate | None) -> float | None:
    """The rate's value in [0,1], or None where nothing was measured."""
    return rate.value if rate is not None else None


def wilson(count: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for `count` successes in `n` trials: (low, high) in [0,1], (0, 1) when n is 0.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). Unlike the
    textbook interval it keeps a width at 0 of n and at n of n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} successes in {n} trials")
    if n == 0:
        return 0.0, 1.0
    share = count / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if count == 0 else (centre - half) / scale
    high = 1.0 if count == n else (centre + half) / scale
    return low, high


@dataclass(frozen=True)
class Rate:
    """`count` of `n`. `value` is None when n is 0: a share of nothing is unknown, not zero."""

    count: int
    n: int

    @property
    def value(self) -> float | None:
        return self.count / self.n if self.n else None

    @property
    def ci95(self) -> tuple[float, float]:
        return wilson(self.count, self.n)

    def to_json(self) -> dict[str, Any]:
        """{"count", "n", "rate", "ci95"}; rate and ci95 in [0,1], None when n is 0."""
        return {
            "count": self.count,
            "n": self.n,
            "rate": self.value,
            "ci95": list(self.ci95) if self.n else None,
        }

    @classmethod
    def from_json(cls, held: Any) -> Rate:
        """What `to_json` gave. Raises ValueError for what is no count, and for a rate that is not theirs."""
        if not isinstance(held, Mapping) or not {"count", "n", "rate"} <= set(held):
            raise ValueError(f"is {str(held)[:60]}; expected count, n and rate")
        count, n, stated = held["count"], held["n"], held["rate"]
        if any(type(value) is not int for value in (count, n)) or not 0 <= count <= n <= MOST:
            raise ValueError(f"counts {count!r} of {n!r}")
        rate = cls(count, n)
        share = type(stated) in (int, float) and 0 <= stated <= 1
        if stated != rate.value and not (share and n and abs(count / n - stated) <= 1e-9):
            raise ValueError(
                f"is stated as {str(stated)[:60]}, and {count} of {n} is {rate.value}: the file was changed"
            )
        return rate

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """As `to_json` writes it."""
        share = {"type": "number", "minimum": 0, "maximum": 1}
        return {
            "description": "count of n; rate and ci95 (Wilson's 95% interval) are in [0,1], and null where n is 0.",
            "type": "object",
            "properties": {
                "count": {"type": "integer", "minimum": 0},
                "n": {"type": "integer", "minimum": 0},
                "rate": {"anyOf": [share, {"type": "null"}]},
                "ci95": {"anyOf": [{"type": "array", "items": share}, {"type": "null"}]},
            },
            "required": ["count", "n", "rate"],
        }

    def __str__(self) -> str:
        """In per cent: `72.4 [71.1, 73.6]`."""
        if not self.n:
            return "-"
        low, high = self.ci95
        return f"{100 * self.count / self.n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
