"""What a run will do: every argument of `craft`, checked before any work, and its one description as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...defences import Defence
from ...errors import UsageError
from ...perturbation.ball import check_eps
from ...proxies import ProxySource
from ...victims import Victim
from .method import Method, Parameter, Value, find_method, methods

# Image-gradients through the victim. On two free CPU cores and the embedded victim: 3.5 minutes, 12 minutes, and some
# fifty (not timed).
BUDGETS = {"quick": 6_000, "standard": 24_000, "full": 100_000}
EPS = 10 / 255  # customary


@dataclass(frozen=True)
class CraftPlan:
    """Everything that decides a pattern, checked; `check_craft` makes one. `params` holds all of the method's own."""

    victim: Victim
    method: Method
    source: ProxySource | None
    eps: float
    norm: str
    seed: int
    budget: int  # image-gradients
    target: int | None
    tile: int
    stop_on: ProxySource | None
    through: tuple[Defence, ...]
    params: dict[str, Value]

    def describe(self) -> dict[str, Any]:
        """The plan as JSON: what a run folder is for, what a dry run prints, and what a card says was asked for."""
        return {
            "method": self.method.name,
            "params": self.params,
            "victim": self.victim.describe(),
            "precision": self.victim.precision,
            "source": self.source.describe() if self.source else None,
            "eps": self.eps,
            "norm": self.norm,
            "seed": self.seed,
            "budget": self.budget,
            "target": self.target,
            "tile": self.tile,
            "stop_on": self.stop_on.describe() if self.stop_on else None,
            **({"through": [defence.name for defence in self.through]} if self.through else {}),
        }

    def changed(self) -> str:
        """The parameters that differ from the method's defaults: `batch=3, lr=0.2`, or `all defaults`."""
        known = self.method.parameters()
        own = [f"{key}={value}" for key, value in self.params.items() if value != known[key].default]
        return ", ".join(own) or "all defaults"


def check_craft(
    victim: Victim,
    *,
    eps: float = EPS,
    norm: str = "linf",
    method: str = "cbgan",
    budget: str | int = "quick",
    seed: int = 0,
    target: int | None = None,
    tile: int = 1,
    source: ProxySource | None = None,
    stop_on: ProxySource | None = None,
    through: Sequence[Defence] = (),
    **params: Any,
) -> CraftPlan:
    """What `craft` would do with these arguments; raises UsageError, before any work, where it could not.

    `target` is a class that every image shall go to; `tile` > 1 makes the pattern repeat tile x tile times (TSC-UAP);
    `stop_on` are images whose fooling rate stops and selects, for methods whose papers do that. `through` are defences
    (of `parse_defences`) between the images and the victim, one drawn for every batch, so that the pattern survives
    them. `params` are the method's own, as text or as what they are.
    """
    chosen = find_method(method)
    own = chosen.check(params)
    _check(chosen, victim, source, eps, norm)
    _check_options(chosen, victim, target, tile, stop_on)
    steps = parse_budget(budget)
    plan = CraftPlan(victim, chosen, source, eps, norm, seed, steps, target, tile, stop_on, tuple(through), own)
    if chosen.cross_check:
        chosen.cross_check(plan)
    return plan


def check_sharing(method: str, processes: int) -> None:
    """Raises UsageError, naming those that can, for a method that cannot share its work among `processes`."""
    if processes > 1 and not find_method(method).shares:
        sharing = _names(lambda m: m.shares)
        raise UsageError(f"{method} cannot share its work out, start it without torchrun; those that can: {sharing}")


def _check(method: Method, victim: Victim, source: ProxySource | None, eps: float, norm: str) -> None:
    if norm not in method.norms:
        raise UsageError(f"{method.name} is defined for {' and '.join(method.norms)}, not for {norm!r}")
    check_eps(eps, norm)
    if method.images == "driven" and source is None:
        raise UsageError(
            f"{method.name} learns from images: give --train-data DIR, or --proxy procedural to run it without data"
        )


def _check_options(method: Method, victim: Victim, target: int | None, tile: int, stop_on: ProxySource | None) -> None:
    if target is not None and not method.targeted:
        raise UsageError(f"{method.name} has no targeted form; those that have: {_names(lambda m: m.targeted)}")
    if target is not None and not 0 <= target < victim.num_classes:
        raise UsageError(f"target {target} is not a class of {victim.name}: expected 0..{victim.num_classes - 1}")
    if stop_on and not method.stops:
        raise UsageError(f"{method.name} does not stop on images; those that do: {_names(lambda m: m.stops)}")
    h, w = victim.input_size[1:]
    if tile < 1 or h % tile or w % tile:
        raise UsageError(f"tile {tile} does not divide the victim's input {h}x{w}")


def _names(has: Callable[[Method], bool]) -> str:
    return ", ".join(name for name, method in methods().items() if has(method)) or "none"


def parse_budget(budget: str | int) -> int:
    """Image-gradients of a level's name or a number; raises UsageError."""
    if isinstance(budget, str) and budget in BUDGETS:
        return BUDGETS[budget]
    expected = f"expected {', '.join(BUDGETS)} or a number of image-gradients, such as 6000"
    number = Parameter(owner="craft", name="budget", kind=int, default=None)
    try:
        found = int(number.read(budget) or 0)
    except UsageError:
        raise UsageError(f"budget {budget!r} is unknown; {expected}") from None
    if found < 1:
        raise UsageError(f"budget {budget} is not positive; {expected}")
    return found
