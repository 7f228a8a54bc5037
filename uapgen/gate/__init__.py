"""Whether results satisfy a policy, with the evidence that the answer rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from statistics import NormalDist

from ..errors import UsageError, did_you_mean
from ..evaluation.intervals import Rate, wilson
from ..evaluation.stored import StoredResults, StoredRow, load_results
from .policy import Check, Policy

PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"
ROUNDING = 1e-9  # 0.32 - 0.3 is above 0.02 in floating point
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """One check on one row. `interval` is that of the rate, or of its change against a baseline; `reason` says why."""

    check: Check
    row: StoredRow
    state: str
    rate: Rate | None
    interval: Interval | None
    reason: str

    @property
    def title(self) -> str:
        return f"{self.check.name or self.check.bound}: {self.row}"


@dataclass(frozen=True)
class Gate:
    """All verdicts. An incomplete run never passes: what has not failed in it is inconclusive."""

    verdicts: tuple[Verdict, ...]
    policy: Policy
    results: StoredResults

    @property
    def exit_code(self) -> int:
        """0 all passed, 1 at least one failed (or is inconclusive under `on_inconclusive = "fail"`), 4 inconclusive."""
        states = {verdict.state for verdict in self.verdicts}
        if FAILED in states or (INCONCLUSIVE in states and self.policy.on_inconclusive == "fail"):
            return 1
        return 4 if INCONCLUSIVE in states else 0

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    @property
    def state(self) -> str:
        return {0: PASSED, 1: FAILED, 4: INCONCLUSIVE}[self.exit_code]

    def counts(self) -> dict[str, int]:
        return {state: sum(v.state == state for v in self.verdicts) for state in (PASSED, FAILED, INCONCLUSIVE)}


def gate(results: StoredResults, policy: Policy) -> Gate:
    """Every check of `policy` on every row that it selects.

    Raises UsageError for a check that selects no row (a typing error must not pass), UapgenError for a baseline file
    that cannot be read.
    """
    load = cache(load_results)
    verdicts = [
        _incomplete(_judge(check, row, results, load)) if not results.complete else _judge(check, row, results, load)
        for check in policy.checks
        for row in _select(check, results)
    ]
    return Gate(tuple(verdicts), policy, results)


def _select(check: Check, results: StoredResults) -> list[StoredRow]:
    def fits(row: StoredRow) -> bool:
        same_eps = check.eps_255 is None or abs(check.eps_255 - row.eps_255) < 1e-3
        names = ((row.victim, check.victim), (row.method, check.method), (row.defence, check.defence))
        return same_eps and all(fnmatchcase(name, glob) for name, glob in names)

    rows = [row for row in results.rows if fits(row)]
    if not rows:
        for what in ("victim", "method", "defence"):
            held, wanted = sorted({getattr(row, what) for row in results.rows}), getattr(check, what)
            if not any(fnmatchcase(name, wanted) for name in held):
                near = did_you_mean(wanted, held) or f"; they hold {', '.join(held[:5])}"
                raise UsageError(f"no row of {results.path} is of {what} {wanted!r}{near}")
        raise UsageError(f"no row of {results.path} is what {check.bound} asks for (victim, method, defence, eps_255)")
    return rows


def _incomplete(verdict: Verdict) -> Verdict:
    if verdict.state == FAILED:
        return verdict
    reason = f"{verdict.reason}; but the run is not complete: let the same command go on"
    return Verdict(verdict.check, verdict.row, INCONCLUSIVE, verdict.rate, verdict.interval, reason)


def _judge(check: Check, row: StoredRow, results: StoredResults, load: Callable[[Path], StoredResults]) -> Verdict:
    rate = row.rates.get(check.metric)
    if rate is None or rate.value is None:
        return Verdict(check, row, INCONCLUSIVE, None, None, f"{check.metric} was not measured (labels? a target?)")
    if check.baseline is None:
        interval = wilson(rate.count, rate.n, _z(check.confidence))
        at_least, limit = (False, check.max) if check.max is not None else (True, check.min)
    else:
        old = _counterpart(row, results, load(check.baseline))
        before = old.rates.get(check.metric) if old else None
        if old is None or before is None or before.value is None:
            return Verdict(check, row, INCONCLUSIVE, rate, None, f"{check.baseline} has no {check.metric} of {row}")
        interval = change(before, rate, _z(check.confidence), same_images=old.images == row.images)
        at_least, limit = False, check.max_increase
        if limit is None:
            interval, limit = (-interval[1], -interval[0]), check.max_decrease
    assert limit is not None
    state, reason = _compare(interval, limit, at_least)
    if rate.n < check.min_images and state == PASSED:
        state, reason = INCONCLUSIVE, f"{rate.n} images, and the check asks for at least {check.min_images}"
    return Verdict(check, row, state, rate, interval, reason)


def _compare(interval: Interval, limit: float, at_least: bool) -> tuple[str, str]:
    low, high = interval
    shown = f"[{100 * low:.1f}, {100 * high:.1f}]%"
    if at_least:
        low, high, limit = -high, -low, -limit
    if high <= limit + ROUNDING:
        return PASSED, f"{shown} is within the limit"
    if low > limit + ROUNDING:
        return FAILED, f"{shown} is beyond the limit"
    return INCONCLUSIVE, f"{shown} straddles the limit; more images would narrow it"


def change(before: Rate, now: Rate, z: float, *, same_images: bool) -> Interval:
    """The interval in [-1,1] of now - before.

    On the very same images it is the plain difference, twice: a statement about these images, which nobody drew anew.
    On others it is Newcombe's hybrid score interval (R. G. Newcombe, "Interval estimation for the difference between
    independent proportions", Statistics in Medicine 17 (1998), method 10).
    """
    assert before.value is not None and now.value is not None
    difference = now.value - before.value
    if same_images:
        return difference, difference
    (l0, u0), (l1, u1) = wilson(before.count, before.n, z), wilson(now.count, now.n, z)
    low = difference - math.hypot(now.value - l1, u0 - before.value)
    return low, difference + math.hypot(u1 - now.value, before.value - l0)


def _counterpart(row: StoredRow, results: StoredResults, baseline: StoredResults) -> StoredRow | None:
    """The baseline's row of the same key: of the same perturbation, else the one at the same place among its equals."""
    equals = [old for old in baseline.rows if old.key == row.key]
    same = [old for old in equals if old.sha256 == row.sha256]
    place = [other for other in results.rows if other.key == row.key].index(row)
    return same[0] if same else equals[place] if place < len(equals) else None


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def check_limit(results: StoredResults, max_fooling_rate: float) -> Gate:
    """The short form: every fooling rate's upper 95% Wilson bound is at most `max_fooling_rate`, in [0,1]."""
    if not 0 <= max_fooling_rate <= 1:  # also refuses nan
        raise UsageError(f"the largest fooling rate {max_fooling_rate} is no share; expected 0..1, such as 0.4")
    return gate(results, Policy((Check("fooling_rate", max=max_fooling_rate),)))


def describe(verdicts: Sequence[Verdict]) -> str:
    """A line for each verdict, for terminals and test failures; the worst first."""
    order = (FAILED, INCONCLUSIVE, PASSED)
    return "\n".join(
        f"{v.state.upper():<12} {v.title}: {_value(v.rate)}{v.reason}"
        for v in sorted(verdicts, key=lambda verdict: order.index(verdict.state))
    )


def _value(rate: Rate | None) -> str:
    return f"{100 * rate.count / rate.n:.1f}% ({rate.count} of {rate.n}), " if rate and rate.n else ""
