"""The work of a comparison: perturbations that are not there yet, cells (a perturbation on a victim), and curves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from torch import Tensor
from tqdm import tqdm

from ..attacks.core.run import Snapshots
from ..distributed import from_main, is_main
from ..evaluation import Rate, evaluate
from ..evaluation.comparison import CellEntry, CurveLine, CurvePoint, DataClass
from ..experiments.cells import Cells, Record, failed
from ..images.sets import ImageSet
from ..perturbation import Perturbation
from ..perturbation.card import OPEN
from ..perturbation.picture import low_share
from ..schema import make, to_json
from ..victims import Victim
from .crafter import Crafter
from .plan import ImportSpec, Task
from .store import Store

KEYS = ("uap", "sha256", "victim")
CHUNK = 8  # perturbations evaluated together: they share clean predictions, and an interruption loses one chunk


@dataclass
class Comparing:
    """`victims` are evaluated on, each over its `images`; `say` gets a line for each step."""

    store: Store
    crafter: Crafter
    victims: dict[str, Victim]
    images: dict[str, ImageSet]
    batch_size: int
    workers: int | None
    say: Callable[[str], None]
    started: float = field(default_factory=time.monotonic)
    _done: int = 0
    _open: int = 0
    _hashes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = self.store.cells.shared()
        held = {tuple(line[key] for key in KEYS): line for line in lines if not failed(line)}
        self._cells = Cells(KEYS, held, self._append)

    def run(self, tasks: Sequence[Task], marked: Sequence[Task], report: Callable[[], object]) -> None:
        """Does what is missing of `tasks`, a chunk at a time, and calls `report` after each chunk.

        `marked` tasks keep patterns on the way. A method that fails leaves a record that says why, and the others go
        on.
        """
        there = from_main(lambda: {task.key: self._held(task) for task in tasks})
        for task in tasks:
            if isinstance(task.spec, ImportSpec):
                self._keep(task, task.spec.load(self.crafter.eps, self.crafter.norm))
            elif held := there[task.key]:
                self._hashes[task.key] = held
        todo = [task for task in tasks if task.key not in self._hashes]
        unfinished = [task for task in tasks if self.lacking(task)]
        self._open = sum(len(self.lacking(task)) for task in tasks)
        self.say(
            f"{len(tasks)} perturbations, {len(todo)} of them to craft at {self.crafter.budget} image-gradients; "
            f"{len(tasks) * len(self.victims)} cells, {self._open} of them to evaluate"
        )
        for start in range(0, len(unfinished), CHUNK):
            chunk = unfinished[start : start + CHUNK]
            for task in chunk:
                if task in todo:
                    self._craft(task, task in marked, f"{todo.index(task) + 1}/{len(todo)}")
            for name in self.victims:
                self._evaluate(name, [task for task in chunk if name in self.lacking(task)])
            report()

    def lacking(self, task: Task) -> list[str]:
        """The victims on which this perturbation, as it is now, has not been evaluated."""
        held = self._hashes.get(task.key)
        return [name for name in self.victims if held is None or (task.key, held, name) not in self._cells.held]

    @contextmanager
    def failing(self, part: str, tasks: Sequence[Task], victim: str | None = None) -> Iterator[None]:
        """What is raised inside becomes the record of why a part (craft, cell, curve) of each of `tasks` failed."""
        try:
            yield
        except Exception as error:
            for task in tasks:
                about = {"uap": task.key, "sha256": self._hashes.get(task.key), "victim": victim}
                self._cells.fail({**about, "part": part, "title": task.title}, error)

    def elapsed(self) -> str:
        return f"{tqdm.format_interval(time.monotonic() - self.started)} so far"

    def _held(self, task: Task) -> str | None:
        file = self.store.uap(task.key)
        return Perturbation.load(file).sha256 if file.is_file() and not isinstance(task.spec, ImportSpec) else None

    def _keep(self, task: Task, uap: Perturbation) -> None:
        if is_main():
            uap.save(self.store.uap(task.key))
        self._hashes[task.key] = uap.sha256

    def _append(self, record: Record) -> None:
        self.store.cells.append(record)
        if failed(record):
            self.say(f"{record['part']} {record['title']}: FAILED, {record['error']}")

    def _craft(self, task: Task, marked: bool, number: str) -> None:
        with self.failing("craft", [task]):
            uap = self.crafter.craft(task, marked)
            self._keep(task, uap)
            cost, seconds = spent(uap), self.crafter.seconds(task) or 0.0
            self.say(f"craft {number} {task.title}: {cost} image-gradients, {seconds:.1f} s ({self.elapsed()})")

    def _evaluate(self, name: str, tasks: Sequence[Task]) -> None:
        tasks = [task for task in tasks if task.key in self._hashes]  # the others failed
        if not tasks:
            return
        with self.failing("cell", tasks, name):
            self._measure(name, tasks)

    def _measure(self, name: str, tasks: Sequence[Task]) -> None:
        victim = self.victims[name]
        floor = self._floor(name)
        uaps = from_main(lambda: [Perturbation.load(self.store.uap(task.key)) for task in tasks])
        result = evaluate(
            uaps,
            victim,
            self.images[name],
            batch_size=self.batch_size,
            noise_floor=floor is None,
            resize=True,
            workers=self.workers,
        )
        if floor is None:
            floor = result.noise[0].fooling_rate
        for task, uap, row in zip(tasks, uaps, result.rows, strict=True):
            cell = CellEntry(
                uap=task.key,
                sha256=uap.sha256,
                method=task.spec.label,
                crafted_on=task.victim,
                seed=task.seed,
                data_class=cast(DataClass, uap.data_class),
                image_gradients=spent(uap),
                seconds=self.crafter.seconds(task),
                below_28=round(low_share(uap.delta), 6),
                victim=name,
                white_box=row.white_box,
                n=row.n,
                fooling_rate=row.fooling_rate,
                adversarial_accuracy=row.adversarial_accuracy,
                targeted=row.targeted[0] if row.targeted else None,
                floor=floor,
                clean_accuracy=result.clean_accuracy,
                resized=uap.size != victim.input_size[1:],
                warnings=tuple(result.warnings),
            )
            self._cells.finish(to_json(cell))
        found = ", ".join(
            f"{task.spec.label} {100 * row.fooling_rate.count / row.n:.1f}"
            for task, row in zip(tasks, result.rows, strict=True)
        )
        self._done += len(tasks)
        self.say(f"cells {self._done}/{self._open} {name}: {found}; {result.seconds:.1f} s ({self.elapsed()})")

    def _floor(self, name: str) -> Rate | None:
        """The random floor on victim `name`, if an earlier cell has it."""
        cells = (make(CellEntry, line, "a cell", rules=OPEN) for line in self._cells.held.values())
        return next((cell.floor for cell in cells if cell.victim == name), None)


def spent(uap: Perturbation) -> int | None:
    """Image-gradients that it cost, if its card says so."""
    return uap.facts.cost.image_gradients if uap.facts.cost else None


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
