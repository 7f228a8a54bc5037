"""Methods side by side: crafted at one budget, measured on the same images and victims, in one resumable folder.

```python
import uapgen
from uapgen.compare import compare

victim = uapgen.load_victim("embedded/efficientnet_lite0")
result = compare({"lite0": victim}, "noise,cbgan,sga@procedural", "foolbox", "out", budget=2000, seeds=[0, 1])
for row in result.rows:
    print(row.method, row.fooling_rate.mean, row.floor)
```
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..attacks import parse_budget
from ..distributed import from_main, is_main
from ..errors import UapgenError, UsageError, did_you_mean
from ..evaluation.comparison import COMPARISON, Comparison
from ..images.listing import find_images
from ..images.sets import ImageSet, open_images
from ..victims import Victim
from .cells import Comparing, add_curves
from .crafter import Callback, Crafter
from .document import write_report
from .plan import (
    ImportSpec,
    MethodSpec,
    Task,
    list_tasks,
    parse_import,
    parse_method,
    parse_methods,
    parse_seeds,
    select,
)
from .store import Store, describe_files
from .table import rows_of, transfer_matrix

__all__ = [
    "ImportSpec",
    "MethodSpec",
    "compare",
    "parse_import",
    "parse_method",
    "parse_methods",
    "parse_seeds",
    "rows_of",
    "transfer_matrix",
    "write_report",
]


@dataclass(frozen=True)
class ComparisonOptions:
    """What `compare` may be asked beside victims, methods and places; all methods get the same.

    train_data: a folder for methods that learn from images. imports: files, as `parse_import` reads them. eps: in [0,1]
    pixel units. seeds_for: only these methods take all `seeds`, the others the first. limit: images to measure on,
    evenly spread. curve: on so many of them the first victim shows how the first seed's patterns got there; 0: none.
    """

    train_data: str | Path | None = None
    imports: Iterable[str] = ()
    eps: float = 10 / 255
    norm: str = "linf"
    budget: str | int = "quick"
    seeds: Sequence[int] = (0,)
    seeds_for: Iterable[str] = ()
    limit: int | None = None
    curve: int = 300
    batch_size: int = 32
    workers: int | None = None


def compare(
    victims: Mapping[str, Victim],
    methods: str | Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    transfer_victims: Mapping[str, Victim] | None = None,
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    callback: Callback | None = None,
    **options: Any,
) -> Comparison:
    """Crafts with every one of `methods` on every one of `victims`, and measures all patterns on all victims.

    `victims` and `transfer_victims` (measured on, not crafted on) have names of your choice; `methods` are text as
    `parse_methods` reads it, `options` those of `ComparisonOptions`. Perturbations are crafted in the victim's own
    precision and measured in fp32 on `data`.

    Everything is in the folder `out`: the same call goes on after an interruption, and a call with other methods,
    seeds or victims adds to it and crafts only what is new. Returns what is in `out`/results.json: all cells of the
    folder, rows and the transfer matrix from them, curves, spectra, and `failed`: what raised an error, for which the
    others did not wait, and which the same call tries again. `complete` says whether this call did all that it was
    asked. `say` gets a line for each step; `callback` is as `craft`'s.

    Under torchrun (`distributed.init` was called) all processes call this alike and return the same; each takes its
    share of the crafting, where the method can share it, and of the measuring. Rank 0 writes.

    Raises UsageError or UapgenError, before any work, for what cannot be.
    """
    plan, transfer = _options(options), dict(transfer_victims or {})
    if not victims or set(transfer) & set(victims):
        raise UsageError("a comparison needs a victim to craft on, and every victim under a name of its own")
    tasks = _tasks(plan, list(victims), methods)
    store, everyone, first = Store(out), {**victims, **transfer}, next(iter(victims))
    crafter = _crafter(plan, store, victims, callback)
    for task in tasks:
        crafter.check(task)
    measured = {name: _in_fp32(victim) for name, victim in everyone.items()}
    images = {name: open_images(data, victim, limit=plan.limit) for name, victim in measured.items()}
    fixed = _fixed(plan, crafter.budget, data, images[first])
    described = {name: {**victim.describe(), "precision": victim.precision} for name, victim in everyone.items()}
    with closing(store):
        held = from_main(lambda: store.settle(fixed, described))
        work = Comparing(store, crafter, measured, images, plan.batch_size, plan.workers, say)
        marked = [task for task in tasks if (task.victim, task.seed) == (first, plan.seeds[0])]

        def report() -> None:
            if is_main():
                write_report(store, held, command=command)

        work.run(tasks, marked, report)
        if plan.curve:
            add_curves(work, marked, first, plan.curve)
        complete = not any(work.lacking(task) for task in tasks)
        return from_main(lambda: write_report(store, held, command=command, complete=complete, figures=True))


def _options(given: dict[str, Any]) -> ComparisonOptions:
    known = [field.name for field in fields(ComparisonOptions)]
    for name in given:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"{name} is no option of a comparison{near}; expected {', '.join(known)}")
    return ComparisonOptions(**given)


def _tasks(plan: ComparisonOptions, victims: Sequence[str], methods: str | Sequence[str]) -> list[Task]:
    if not plan.seeds:
        raise UsageError("a comparison needs a seed")
    specs = parse_methods(methods, train_data=plan.train_data is not None, norm=plan.norm)
    imports = [parse_import(text) for text in plan.imports]
    return list_tasks(victims, specs, plan.seeds, select(specs, plan.seeds_for), imports)


def _crafter(
    plan: ComparisonOptions, store: Store, victims: Mapping[str, Victim], callback: Callback | None
) -> Crafter:
    folder = str(plan.train_data) if plan.train_data is not None else None
    return Crafter(store, dict(victims), folder, plan.eps, plan.norm, parse_budget(plan.budget), callback)


def _fixed(plan: ComparisonOptions, budget: int, data: str | Path, images: ImageSet) -> dict[str, Any]:
    """What all cells of a folder have in common."""
    return {
        "schema": COMPARISON,
        "eps": plan.eps,
        "norm": plan.norm,
        "budget": budget,
        "data": describe_files(str(data), {name: images.source.size(name) for name in images.names}),
        "train_data": _describe_folder(plan.train_data),
    }


def _in_fp32(victim: Victim) -> Victim:
    """The same module in fp32: bf16 moves some predictions, and a number should not depend on the processor."""
    twin = copy.copy(victim)
    twin.precision = "fp32"
    return twin


def _describe_folder(path: str | Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    listing = find_images(path, UapgenError)
    return describe_files(str(path), {name: listing.size(name) for name in listing.names})
