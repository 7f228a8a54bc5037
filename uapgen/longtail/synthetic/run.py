"""Runs a plan: generators, classifiers, what the metrics say of each source; a line of JSON for each result.

A folder for each seed (`rows.jsonl`, `gans/`, `classifiers/`), so that seeds can run beside each other.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ...errors import UapgenError
from ...experiments.cells import Cells, Experiment, Lines, Record, failed
from ...gan import GeneratorNetwork
from ...perturbation import Perturbation
from ...runfolder import RunFolder
from ...runtime import resolve_device
from ...victims import Victim
from ...victims.trained import load_classifier
from ..classifier import FILE
from ..data import LabelledImages
from ..sources import load_data
from .ensemble import train_ensemble
from .measures import describe_images, under_uap
from .plan import ClassifierCell, SyntheticPlan, sources
from .source import ClassifierFilter, Source, Transform, samplers
from .training import Outcome, train_on

REAL = "real data"
KEYS = ("kind", "name", "seed", "uap")


@dataclasses.dataclass(frozen=True)
class SeedRows:
    """rows.jsonl of each seed's folder in `out`."""

    out: Path
    seeds: tuple[int, ...]

    def read(self) -> list[Record]:
        return [row for seed in self.seeds for row in self._lines(seed).read()]

    def append(self, record: Record) -> None:
        self._lines(record["seed"]).append(record)

    def _lines(self, seed: int) -> Lines:
        return Lines(seed_folder(self.out, seed) / "rows.jsonl")


def run_plan(
    plan: SyntheticPlan,
    out: str | Path,
    *,
    uaps: Sequence[Perturbation] = (),
    device: str = "auto",
    precision: str = "fp32",
    jobs: int = 1,
    restart: bool = False,
    say: Callable[[str], None] = print,
) -> Experiment:
    """Does what is missing of the plan in `out`; `collect` has its rows. The same call again continues, and seeds and
    UAPs can be added.

    precision: of training; filters, features and tests of the real classifier are fp32. jobs: seeds at a time, each in
    a process with its share of the CPU. restart: discards what `out` holds. say: told of every result.
    Raises UsageError where `out` holds another plan.
    """
    folder = RunFolder(out, {**_options(plan), "precision": precision}, restart=restart)
    cells = plan.cells()
    rows = 2 + len(cells) + len(sources(cells)) + len(uaps) * (1 + len(cells))
    total = len(plan.seeds) * rows
    experiment = Experiment(SeedRows(folder.path, plan.seeds), KEYS, _headline, total=total, say=say)
    experiment.run(partial(_seed, plan, folder.path, tuple(uaps), device, precision), plan.seeds, jobs)
    return experiment


def _options(plan: SyntheticPlan) -> dict[str, Any]:
    """What decides the numbers, flat, as `gan.width`; seeds may be added, and a root is where and not what."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(plan).items():
        if name not in ("seeds", "root"):
            flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def collect(plan: SyntheticPlan, out: str | Path) -> list[Record]:
    """The finished rows that `out` holds of the plan's seeds."""
    experiment = Experiment(SeedRows(Path(out), plan.seeds), KEYS, _headline, total=0)
    return list(experiment.cells.held.values())


def seed_folder(out: str | Path, seed: int) -> Path:
    return Path(out) / f"seed{seed}"


def _seed(
    plan: SyntheticPlan,
    out: Path,
    uaps: Sequence[Perturbation],
    device: str,
    precision: str,
    seed: int,
    cells: Cells,
) -> None:
    """Everything of one seed that is missing."""
    work = SeedWork(plan, seed, seed_folder(out, seed), device, precision)
    names = (REAL, *(cell.name for cell in plan.cells()))
    jobs: list[tuple[str, str, str | None, Callable[[], Record]]] = [
        ("classifier", REAL, None, lambda: _outcome(work.real)),
        ("source", REAL, None, work.describe_real),
        *(("classifier", cell.name, None, partial(work.classify, cell)) for cell in plan.cells()),
        *(("source", cell.source, None, partial(work.describe, cell)) for cell in sources(plan.cells())),
        *(("uap", name, uap.sha256, partial(work.attack, name, uap)) for uap in uaps for name in names),
    ]
    for kind, name, key, job in jobs:
        cells.attempt({"kind": kind, "name": name, "seed": seed, **({"uap": key} if key else {})}, partial(_timed, job))


def _timed(job: Callable[[], Record]) -> Record:
    started = time.perf_counter()
    found = job()
    return {**found, "seconds": round(time.perf_counter() - started, 2)}


@dataclasses.dataclass
class SeedWork:
    """What the jobs of one seed share; nothing is trained before it is needed."""

    plan: SyntheticPlan
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

    def members(self, cell: ClassifierCell) -> list[GeneratorNetwork]:
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

    def source(self, cell: ClassifierCell) -> Source:
        grid, k = self.plan.grid, self.data.num_classes
        psi = grid.psi if "truncation" in cell.tricks else None
        keep = ClassifierFilter(self.annotator, grid.threshold, grid.tries) if "filter" in cell.tricks else None
        transform = Transform(grid.pad, self.data.flips) if "transform" in cell.tricks else None
        return Source(samplers(self.members(cell), k, psi=psi), k, cell.shares, transform, keep)

    def classify(self, cell: ClassifierCell) -> dict[str, Any]:
        source, images = self.source(cell), self.plan.images or len(self.data)
        make = source.dataset if cell.mode == "fixed" else source.stream
        data = make(images, batch=self.plan.classifier.batch, seed=self.seed, name=f"{self.data.name} GAN")
        return _outcome(self._train(data, cell.name, augmented=False))

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

    def describe(self, cell: ClassifierCell) -> dict[str, Any]:
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


def _outcome(outcome: Outcome) -> dict[str, Any]:
    fields = ("best_accuracy", "best_epoch", "last_accuracy", "epochs")
    return {name: getattr(outcome, name) for name in fields}


def _headline(row: Record) -> str:
    return f"seed {row['seed']}, {row['name']}" + ("" if failed(row) else f", {row['kind']}: {_figures(row)}")


def _figures(row: Record) -> str:
    if row["kind"] == "classifier":
        return f"accuracy {100 * row['last_accuracy']:.1f} (best epoch {100 * row['best_accuracy']:.1f})"
    if row["kind"] == "source":
        return f"MS-SSIM {row['ms_ssim']:.3f}, Frechet-annotator {row['frechet_annotator']:.2f}"
    return f"fooling rate {100 * row['fooling_rate']['rate']:.1f}, floor {100 * row['floor']['rate']:.1f}"
