"""Fooling rate over cost: snapshots of a run, measured on a subset of the images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from ..attacks.core.run import Snapshots
from ..distributed import from_main
from ..evaluation import evaluate
from ..evaluation.comparison import CurveLine, CurvePoint
from ..images.sets import ImageSet
from ..perturbation import Perturbation
from ..perturbation.card import OPEN
from ..schema import make, to_json
from .cells import Comparing, spent
from .plan import Task


def add_curves(work: Comparing, tasks: Sequence[Task], name: str, n: int) -> None:
    """Evaluates what `tasks` left on their way on `n` images of the victim `name`; a line of curves.jsonl for each."""
    images = work.images[name].spread(n)
    lines = [make(CurveLine, line, "curves.jsonl", rules=OPEN) for line in work.store.curves.shared()]
    held = {(line.uap, line.sha256, line.images) for line in lines}
    for number, task in enumerate(tasks, 1):
        uap = from_main(partial(_saved, work.store.uap(task.key)))
        if uap is None:
            continue  # it failed, and the report says so
        if (task.key, uap.sha256, len(images)) in held:
            continue
        with work.failing("curve", [task], name):
            line = _curve(work, task, uap, name, images)
            work.store.curves.append(to_json(line))
            ends = " -> ".join(f"{100 * point.changed / point.n:.1f}" for point in line.points)
            work.say(f"curve {number}/{len(tasks)} {task.title}: {ends} ({work.elapsed()})")


def _saved(file: Path) -> Perturbation | None:
    return Perturbation.load(file) if file.is_file() else None


def _curve(work: Comparing, task: Task, uap: Perturbation, name: str, images: ImageSet) -> CurveLine:
    end = spent(uap) or 0
    kept = dict(from_main(Snapshots(work.store.craft(task.key) / "marks", work.crafter.marks).read))
    costs = [*(cost for cost in kept if cost < end), end]
    uaps = [*(_as_perturbation(kept[cost], uap) for cost in costs[:-1]), uap]
    result = evaluate(
        uaps, work.victims[name], images, batch_size=work.batch_size, noise_floor=False, workers=work.workers
    )
    points = tuple(
        CurvePoint(cost, row.fooling_rate.count, row.n) for cost, row in zip(costs, result.rows, strict=True)
    )
    return CurveLine(task.key, uap.sha256, name, len(images), points)


def _as_perturbation(delta: Tensor, last: Perturbation) -> Perturbation:
    method, data = {"name": last.method}, {"class": last.data_class}
    return Perturbation.create(delta, eps=last.eps, norm=last.norm, method=method, data=data)
