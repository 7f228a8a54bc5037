"""`craft` runs any method and returns a Perturbation; what it takes is checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...defences import Defence
from ...distributed import from_main, world
from ...errors import UsageError
from ...perturbation import Perturbation
from ...perturbation.ball import check_eps, project
from ...proxies import ProxySource, combined_class
from ...runfolder import RunFolder
from ...victims import Victim
from .eot import behind
from .method import Method, find_method, methods
from .run import Callback, Crafting, Snapshots

# Image-gradients through the victim. On two free CPU cores and the embedded victim: 3.5 minutes, 12 minutes, and some
# fifty (not timed).
BUDGETS = {"quick": 6_000, "standard": 24_000, "full": 100_000}


def craft(
    victim: Victim,
    *,
    method: str = "cbgan",
    source: ProxySource | None = None,
    eps: float = 10 / 255,
    norm: str = "linf",
    seed: int = 0,
    budget: str | int = "quick",
    target: int | None = None,
    tile: int = 1,
    stop_on: ProxySource | None = None,
    through: Sequence[Defence] = (),
    marks: Sequence[int] = (),
    folder: str | Path | None = None,
    restart: bool = False,
    callback: Callback | None = None,
    **params: Any,
) -> Perturbation:
    """Crafts one universal perturbation against `victim`.

    `eps` bounds the pattern in [0,1] pixel units (10/255 is customary), in `norm` linf or l2. `source` gives the
    proxy images; None means the method's own, which for data-free methods is no image at all. `budget` is quick,
    standard, full or a number of image-gradients. `target` is a class that every image shall go to; `tile` > 1 makes
    the pattern repeat tile x tile times (TSC-UAP); `stop_on` are images whose fooling rate stops and selects, for
    methods whose papers do that. `through` are defences (of `parse_defences`) between the images and the victim, one
    drawn for every batch, so that the pattern survives them. `marks` are image-gradients at which a copy of the
    pattern is kept in `folder`/marks.
    With a `folder` the run saves its state there and the same call goes on after an interruption, ending in the same
    bytes. `params` are the method's own (see `find_method(name).parameters()`).
    Under torchrun (`distributed.init` was called) every process calls this with the same arguments and gets the same
    perturbation: each takes its rows of every batch, where the method `shares`, and does all of the work where not.

    Raises UsageError for a bad argument, UapgenError when the run fails.
    """
    chosen = check_craft(victim, method, source, eps, norm, target, tile, stop_on)
    params = {**{k: p.default for k, p in chosen.parameters().items()}, **chosen.check(params)}
    steps = parse_budget(budget)
    options = {
        "method": method,
        "params": params,
        "victim": victim.describe(),
        "precision": victim.precision,
        "source": source.describe() if source else None,
        "eps": eps,
        "norm": norm,
        "seed": seed,
        "budget": steps,
        "target": target,
        "tile": tile,
        "stop_on": stop_on.describe() if stop_on else None,
        **({"through": [defence.name for defence in through]} if through else {}),
    }
    run_folder = from_main(lambda: RunFolder(folder, options, restart=restart)) if folder else None
    worker = victim.sharing() if chosen.shares and world() > 1 else victim
    run = Crafting(worker, source, eps, seed, steps, norm, target, tile, stop_on, run_folder, callback)
    if through:
        # Keyed by what has been spent, which a resumed run knows: it draws what the uninterrupted one would have drawn.
        run.victim = behind(worker, through, lambda: run.rng("through", *run.cost.as_dict().values()))
    run.snapshots = Snapshots(run_folder.path / "marks", marks) if run_folder else None
    delta = project(run.tied(chosen.function(run, **params)), eps, norm)[0].cpu()
    sources = (run.sources or ([source] if source else [])) + ([stop_on] if stop_on else [])
    extra: dict[str, Any] = {
        **({"target": target} if target is not None else {}),
        **({"tile": tile} if tile > 1 else {}),
    }
    extra |= {"through": [defence.name for defence in through]} if through else {}
    return Perturbation.create(
        delta,
        eps=eps,
        norm=norm,
        method={
            "name": method,
            "paper": chosen.paper,
            "params": {**params, **extra},
            "budget": steps,
            "stopped": run.stopped,
            **({"notes": run.notes} if run.notes else {}),
        },
        data={"class": combined_class(sources), "sources": [s.describe() for s in sources]},
        victim=victim.describe(),
        seed=seed,
        cost=run.cost.as_dict(),
        environment={"device": victim.device.type, "precision": victim.precision, **_processes(run)},
    )


def check_sharing(method: str, processes: int) -> None:
    """Raises UsageError, naming those that can, for a method that cannot share its work among `processes`."""
    if processes > 1 and not find_method(method).shares:
        sharing = _names(lambda m: m.shares)
        raise UsageError(f"{method} cannot share its work out, start it without torchrun; those that can: {sharing}")


def _processes(run: Crafting) -> dict[str, int]:
    """How many processes made the pattern, for the card: the order of their sums shows in its last bits."""
    return {"processes": world()} if run.victim.shared else {}


def check_craft(
    victim: Victim,
    method: str,
    source: ProxySource | None,
    eps: float,
    norm: str,
    target: int | None = None,
    tile: int = 1,
    stop_on: ProxySource | None = None,
) -> Method:
    """The method of that name, if `craft` would take these arguments; raises UsageError if it would not."""
    chosen = find_method(method)
    _check(chosen, victim, source, eps, norm)
    _check_options(chosen, victim, target, tile, stop_on)
    return chosen


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
    if isinstance(budget, str) and not budget.isdigit():
        if budget not in BUDGETS:
            raise UsageError(
                f"budget {budget!r} is unknown; expected {', '.join(BUDGETS)} or a number of image-gradients"
            )
        return BUDGETS[budget]
    if int(budget) < 1:
        raise UsageError(f"budget {budget} is not positive; expected a number of image-gradients, such as 6000")
    return int(budget)
