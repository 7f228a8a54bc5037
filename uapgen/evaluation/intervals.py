"""A share with the counts that it came from and its 95% interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution


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

    def __str__(self) -> str:
        """In per cent: `72.4 [71.1, 73.6]`."""
        if not self.n:
            return "-"
        low, high = self.ci95
        return f"{100 * self.count / self.n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
