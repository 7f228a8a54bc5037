"""`compare`: checks everything, crafts what is missing, evaluates it on every victim, and writes the report."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..attacks import parse_budget
from ..distributed import from_main, is_main
from ..errors import UsageError
from ..evaluation.comparison import COMPARISON, Comparison
from ..images.listing import find_images
from ..images.sets import open_images
from ..victims import Victim
from .cells import Comparing
from .crafter import Callback, Crafter
from .curves import add_curves
from .document import write_report
from .plan import list_tasks, parse_import, parse_methods, select
from .store import Store, describe_files


def compare(
    victims: Mapping[str, Victim],
    methods: str | Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    train_data: str | Path | None = None,
    transfer_victims: Mapping[str, Victim] | None = None,
    imports: Iterable[str] = (),
    eps: float = 10 / 255,
    norm: str = "linf",
    budget: str | int = "quick",
    seeds: Sequence[int] = (0,),
    seeds_for: Iterable[str] = (),
    limit: int | None = None,
    curve: int = 300,
    batch_size: int = 32,
    workers: int | None = None,
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    callback: Callback | None = None,
) -> Comparison:
    """Crafts with every one of `methods` on every one of `victims`, and measures all patterns on all victims.

    `victims` and `transfer_victims` (measured on, not crafted on) have names of your choice; `methods` and `imports`
    are text as `parse_methods` and `parse_import` read it. With `seeds_for`, only those methods take all `seeds`, the
    others the first. `eps` is in [0,1] pixel units; bound and budget are the same for all. Perturbations are crafted in
    the victim's own precision and measured in fp32, on `limit` images of `data`, evenly spread. On `curve` of them the
    first victim shows how the first seed's patterns got there (0: no curves).

    Everything is in the folder `out`: the same call goes on after an interruption, and a call with other methods,
    seeds or victims adds to it and crafts only what is new. Returns what is in `out`/results.json: all cells of the
    folder, rows and the transfer matrix from them, curves, spectra, and `failed`: what raised an error, for which the
    others did not wait, and which the same call tries again. `complete` says whether this call did all that it was
    asked. `say` gets a line for each step; `callback` is as `craft`'s.

    Under torchrun (`distributed.init` was called) all processes call this alike and return the same; each takes its
    share of the crafting, where the method can share it, and of the measuring. Rank 0 writes.

    Raises UsageError or UapgenError, before any work, for what cannot be.
    """
    transfer = dict(transfer_victims or {})
    if not victims or set(transfer) & set(victims):
        raise UsageError("a comparison needs a victim to craft on, and every victim under a name of its own")
    if not seeds:
        raise UsageError("a comparison needs a seed")
    specs = parse_methods(methods, train_data=train_data is not None, norm=norm)
    repeated = select(specs, seeds_for)
    tasks = list_tasks(list(victims), specs, seeds, repeated, [parse_import(text) for text in imports])
    store, everyone = Store(out), {**victims, **transfer}
    folder = str(train_data) if train_data is not None else None
    crafter = Crafter(store, dict(victims), folder, eps, norm, parse_budget(budget), callback)
    for task in tasks:
        crafter.check(task)
    measured = {name: _in_fp32(victim) for name, victim in everyone.items()}
    images = {name: open_images(data, victim, limit=limit) for name, victim in measured.items()}
    one = next(iter(images.values()))
    options = {
        "schema": COMPARISON,
        "eps": eps,
        "norm": norm,
        "budget": crafter.budget,
        "data": describe_files(str(data), {name: one.source.size(name) for name in one.names}),
        "train_data": _describe_folder(train_data),
    }
    described = {name: {**victim.describe(), "precision": victim.precision} for name, victim in everyone.items()}
    with closing(store):
        options = from_main(lambda: store.settle(options, described))
        work = Comparing(store, crafter, measured, images, batch_size, workers, say)
        first = next(iter(victims))
        marked = [task for task in tasks if (task.victim, task.seed) == (first, seeds[0])]

        def report() -> None:
            if is_main():
                write_report(store, options, command=command)

        work.run(tasks, marked, report)
        if curve:
            add_curves(work, marked, first, curve)
        complete = not any(work.lacking(task) for task in tasks)
        return from_main(lambda: write_report(store, options, command=command, complete=complete, figures=True))


def _in_fp32(victim: Victim) -> Victim:
    """The same module in fp32: bf16 moves some predictions, and a number should not depend on the processor."""
    twin = copy.copy(victim)
    twin.precision = "fp32"
    return twin


def _describe_folder(path: str | Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    listing = find_images(path)
    return describe_files(str(path), {name: listing.size(name) for name in listing.names})
