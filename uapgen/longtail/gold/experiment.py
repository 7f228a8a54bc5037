"""GOLD against its baselines: every row with every seed, a line of results.jsonl each, and none measured twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import UsageError
from ...experiments.jobs import in_processes
from ...runfolder import RunFolder
from ...runtime import resolve_device
from ...tables import markdown_table, spread
from ..sources import load_data
from .active import Strategy
from .bench import Bench, Record
from .examples import Examples, blobs, of_images
from .plan import Data, Plan

PARTS = ("reweighting", "rejection", "active")
STRATEGIES: tuple[Strategy, ...] = ("random", "gold")
Step = Callable[[Bench], None]
Task = tuple[Step, ...]


def load_examples(data: Data, root: str | Path | None = None) -> tuple[Examples, Examples]:
    """Training and test part. Raises what `load_data` raises."""
    if data.spec == "blobs":
        return blobs(data.points, seed=0), blobs(data.points, seed=1)
    held = load_data(data.spec, root=root, train=not data.test_only, size=data.resize)
    test = (
        load_data(data.test, root=root, size=32) if data.test else load_data(data.spec, root=root, train=False, size=32)
    )
    return of_images(held, window=None if data.resize == 32 else 32), of_images(test)


def run(
    plan: Plan,
    out: str | Path,
    *,
    root: str | Path | None = None,
    parts: tuple[str, ...] = PARTS,
    device: str | torch.device = "auto",
    jobs: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> list[Record]:
    """All records of `out`, which may hold a part of this experiment; an interrupted one goes on.

    parts: of PARTS; those without a section in the plan are left out. jobs: processes, for which `say`, told of every
    result, must be picklable. Raises UsageError for unknown parts, and when `out` holds another plan or other data.
    """
    if unknown := set(parts) - set(PARTS):
        raise UsageError(f"no part {sorted(unknown)[0]!r}; expected {', '.join(PARTS)}")
    real, test = load_examples(plan.data, root)
    about = {"trained_on": real.name, "trained_sha256": real.sha256, "test_sha256": test.sha256}
    fixed = {name: section for name, section in asdict(plan).items() if name != "seeds"}
    place = RunFolder(out, {**fixed, **about}).path
    chosen = resolve_device(device)
    bench = Bench(plan, real.to(chosen), test.to(chosen), place, about, chosen, say)
    tasks = [task for seed in plan.seeds for task in _tasks(plan, parts, seed)]
    if jobs == 1:
        for task in tasks:
            _do(task, bench)
    else:
        given = (plan, root, place, about, chosen, say, bench.results.read())
        list(in_processes(_work, tasks, jobs, _start, given))
    strategies = {name: number for number, name in enumerate(STRATEGIES)}
    return sorted(bench.results.read(), key=lambda record: strategies.get(record["row"], -1))


def _tasks(plan: Plan, parts: tuple[str, ...], seed: int) -> list[Task]:
    """What may run at the same time; steps of one task share a GAN."""
    shared: list[Step] = [partial(Bench.reference, seed=seed)]
    if "reweighting" in parts and plan.reweighting:
        shared.append(partial(Bench.reweighting, seed=seed))
    if "rejection" in parts and plan.rejection:
        shared.append(partial(Bench.rejection, seed=seed))
    apart = STRATEGIES if "active" in parts and plan.active else ()
    return [tuple(shared), *((partial(Bench.active, seed=seed, strategy=name),) for name in apart)]


def _do(task: Task, bench: Bench) -> None:
    for step in task:
        step(bench)


_bench: Bench


def _start(
    plan: Plan,
    root: str | Path | None,
    place: Path,
    about: dict[str, str],
    device: torch.device,
    say: Callable[[str], None],
    held: list[Record],
) -> None:
    """Of a worker process."""
    global _bench
    real, test = (part.to(device) for part in load_examples(plan.data, root))
    _bench = Bench(plan, real, test, place, about, device, say, held)


def _work(task: Task) -> None:
    _do(task, _bench)


HEAD = ("part", "row", "labels", "fitting capacity, %", "seeds")


def markdown(records: list[dict[str, Any]]) -> str:
    """One line a row: mean and sample standard deviation over seeds, in per cent. Validation checks are left out."""
    rows: dict[tuple[str, str, int | None], list[float]] = defaultdict(list)
    for record in records:
        if record["check"] is None:
            rows[record["part"], record["row"], record["labels"]].append(100 * record["value"])
    body = [
        [part, row, "" if labels is None else str(labels), spread(values, 2), str(len(values))]
        for (part, row, labels), values in sorted(rows.items(), key=lambda item: _order(list(rows), item[0]))
    ]
    return markdown_table(HEAD, body, left=2) + "\n"


def _order(rows: list[tuple[str, str, int | None]], row: tuple[str, str, int | None]) -> tuple[int, int, int]:
    """Parts as they came first, active learning by labels, rows as they came first."""
    parts = list(dict.fromkeys(part for part, _, _ in rows))
    return parts.index(row[0]), row[2] or 0, rows.index(row)
