"""One seed of a plan: the real classifier, the generators, one classifier a cell, and the metrics of each source."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ...errors import UapgenError
from ...experiments.records import Lines
from ...gan import GeneratorNetwork
from ...perturbation import Perturbation
from ...runtime import resolve_device
from ...victims import Victim
from ...victims.trained import load_classifier
from ..classifier.training import FILE
from ..data import LabelledImages
from ..sources import load_data
from .ensemble import train_ensemble
from .measures import describe_images, under_uap
from .plan import Cell, Plan, sources
from .source import ClassifierFilter, Source, Transform, sampler
from .training import Outcome, train_on

REAL = "real data"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return Lines(folder / "rows.jsonl").read()


def run_seed(
    plan: Plan,
    seed: int,
    folder: Path,
    *,
    uaps: Sequence[Perturbation],
    device: str,
    precision: str,
    say: Callable[[str], None],
) -> list[str]:
    """Appends what is missing to `folder`/rows.jsonl; returns a line for each cell that failed."""
    work = Work(plan, seed, folder, device, precision)
    done = {(row["kind"], row["name"], row.get("uap")) for row in read_rows(folder)}
    failed: list[str] = []
    names = (REAL, *(cell.name for cell in plan.cells()))
    jobs: list[tuple[str, str, str | None, Callable[[], dict[str, Any]]]] = [
        ("classifier", REAL, None, lambda: outcome_row(work.real)),
        ("source", REAL, None, work.describe_real),
        *(("classifier", cell.name, None, partial(work.classify, cell)) for cell in plan.cells()),
        *(("source", cell.source, None, partial(work.describe, cell)) for cell in sources(plan.cells())),
        *(("uap", name, uap.sha256, partial(work.attack, name, uap)) for uap in uaps for name in names),
    ]
    for kind, name, key, job in jobs:
        if (kind, name, key) in done:
            continue
        started = time.perf_counter()
        try:
            found = job()
        except UapgenError as error:
            failed.append(f"seed {seed}, {name}: {error}")
            say(failed[-1])
            continue
        row = {"kind": kind, "name": name, "seed": seed, **({"uap": key} if key else {}), **found}
        row["seconds"] = round(time.perf_counter() - started, 2)
        Lines(folder / "rows.jsonl").append(row)
        say(f"seed {seed}, {kind}, {name}: {_headline(row)} ({row['seconds']:.1f} s)")
    return failed


@dataclasses.dataclass
class Work:
    """What the jobs of one seed share; nothing is trained before it is needed."""

    plan: Plan
    seed: int
    folder: Path
    device: str
    precision: str
    _held: dict[tuple[int, str], list[GeneratorNetwork]] = dataclasses.field(default_factory=dict, repr=False)

    @cached_property
    def data(self) -> LabelledImages:
        return self._load(train=True)

    @cached_property
    def test(self) -> LabelledImages:
        return self._load(train=False)

    def _load(self, *, train: bool) -> LabelledImages:
        plan = self.plan
        own = not train and plan.test is not None
        spec = str(plan.test) if own else plan.data
        data = load_data(spec, root=plan.root, train=train or own, size=plan.size, num_classes=plan.num_classes)
        return data.to(resolve_device(self.device))

    @cached_property
    def real(self) -> Outcome:
        """The reference: the same classifier and recipe, on real images with fresh crops and flips in every epoch."""
        return self._train(self.data, REAL, augmented=True)

    @cached_property
    def annotator(self) -> Victim:
        """The reference in fp32: it filters, and gives the features of weights, distances and figures."""
        return self.real.classifier if self.precision == "fp32" else self._load_classifier(REAL)

    def members(self, cell: Cell) -> list[GeneratorNetwork]:
        half: dict[str, Any] = {"precision": "bf16"} if self.precision == "bf16" else {}
        key = (cell.members, cell.method)
        if key not in self._held:
            self._held[key] = train_ensemble(
                self.data,
                cell.members,
                cell.method,  # type: ignore[arg-type]
                recipe=dataclasses.replace(self.plan.gan, **half),
                phi=self.annotator,
                folder=self.folder / "gans",
                seed=self.seed,
                device=self.device,
            )
        return self._held[key]

    def source(self, cell: Cell) -> Source:
        grid, k = self.plan.grid, self.data.num_classes
        psi = grid.psi if "truncation" in cell.tricks else None
        keep = ClassifierFilter(self.annotator, grid.threshold, grid.tries) if "filter" in cell.tricks else None
        transform = Transform(grid.pad, self.data.flips) if "transform" in cell.tricks else None
        return Source(tuple(sampler(g, k, psi=psi) for g in self.members(cell)), k, cell.shares, transform, keep)

    def classify(self, cell: Cell) -> dict[str, Any]:
        source, images = self.source(cell), self.plan.images or len(self.data)
        make = source.dataset if cell.mode == "fixed" else source.stream
        data = make(images, batch=self.plan.classifier.batch, seed=self.seed, name=f"{self.data.name} GAN")
        return outcome_row(self._train(data, cell.name, augmented=False))

    def _train(self, data: Any, name: str, *, augmented: bool) -> Outcome:
        still = {} if augmented else {"pad": 0, "flip": False}  # a source has its own transformations
        return train_on(
            data,
            dataclasses.replace(self.plan.classifier, **still),  # type: ignore[arg-type]
            folder=self._classifier(name),
            test=self.test,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
        )

    def describe_real(self) -> dict[str, Any]:
        return describe_images(self.data, self.test, self.annotator, self.plan.samples, self.plan.grid, self.seed)

    def describe(self, cell: Cell) -> dict[str, Any]:
        made = self.source(cell).dataset(
            self.plan.samples.images, batch=self.plan.classifier.batch, seed=self.seed + 1, name=cell.name
        )
        return describe_images(made, self.test, self.annotator, self.plan.samples, self.plan.grid, self.seed)

    def attack(self, name: str, uap: Perturbation) -> dict[str, Any]:
        found = under_uap(self._load_classifier(name), self.test, uap, seed=self.seed)
        return {"method": uap.method, "eps": uap.eps, "norm": uap.norm, **found}

    def _classifier(self, name: str) -> Path:
        return self.folder / "classifiers" / re.sub(r"[^\w.]+", "-", name)

    def _load_classifier(self, name: str) -> Victim:
        path = self._classifier(name) / FILE
        if not path.is_file():
            raise UapgenError(f"{path} is not there, because its training failed; run the same command again")
        return load_classifier(path, device=self.device, precision="fp32")


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    fields = ("best_accuracy", "best_epoch", "last_accuracy", "epochs")
    return {name: getattr(outcome, name) for name in fields}


def _headline(row: dict[str, Any]) -> str:
    if row["kind"] == "classifier":
        return f"accuracy {100 * row['last_accuracy']:.1f} (best epoch {100 * row['best_accuracy']:.1f})"
    if row["kind"] == "source":
        return f"MS-SSIM {row['ms_ssim']:.3f}, Frechet-annotator {row['frechet_annotator']:.2f}"
    return f"fooling rate {100 * row['fooling_rate']['rate']:.1f}, floor {100 * row['floor']['rate']:.1f}"
