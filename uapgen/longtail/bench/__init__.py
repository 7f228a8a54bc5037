"""`uapgen gan bench`: trains every GAN of a plan, scores it, and keeps a line for each, so that a run can go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...experiments.cells import Cells, Experiment, Lines, Record, failed
from ...experiments.jobs import PerProcess
from ...gan import save_grid
from ...runfolder import RunFolder
from ...runtime import resolve_device, rng
from ...victims import Victim
from ...victims.trained import load_classifier
from ..classifier import train_classifier
from ..data import LabelledImages, long_tailed
from ..generator import train_generator
from ..metrics import load_inception
from ..metrics.judge import GRID, Judge, by_class
from ..sources import load_data
from .plan import BenchCell, BenchPlan

KEYS = ("imbalance", "method", "seed")


def run_bench(
    plan: BenchPlan,
    out: str | Path,
    *,
    root: str | Path | None = None,
    annotator: str | Path | None = None,
    inception: str | Path | None = None,
    device: str | torch.device = "auto",
    jobs: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Experiment:
    """Does what is missing of a plan in the folder `out` (cells.jsonl, classifiers/, gans/, samples/), `jobs` GANs at a
    time, each in a process with its share of the CPU. `lines_of` has the lines; a GAN that fails is one with an error.

    root: where the data lies. annotator: the file of a classifier, in place of one that is trained here on all training
    images with a seed that no classifier in the loop has. inception: the file of FID's network.
    Raises UsageError when `out` holds another plan.
    """
    bench = GanBench(plan, Path(out), root, annotator, inception, resolve_device(device))
    hashes = {"data_sha256": bench.data.sha256, "test_sha256": bench.test.sha256}
    given = {name: Path(file).name for name, file in (("annotator", annotator), ("inception", inception)) if file}
    folder = RunFolder(out, {**asdict(plan), **hashes, **given})
    cells = list(plan.cells())
    experiment = Experiment(Lines(folder.path / "cells.jsonl"), KEYS, _headline, total=len(cells), say=say)
    missing = experiment.missing(lambda cell: cell.identity, cells)
    say(f"{len(cells)} GANs, {len(missing)} of them to train")
    if missing:
        experiment.run(bench.cell, bench.prepare(missing, experiment.cells), jobs)
    return experiment


def lines_of(plan: BenchPlan, experiment: Experiment) -> list[Record]:
    """The lines of the plan's cells, in the plan's order."""
    lines = {experiment.cells.key(line): line for line in experiment.records()}
    keys = [experiment.cells.key(cell.identity) for cell in plan.cells()]
    return [lines[key] for key in keys if key in lines]


@dataclass
class GanBench(PerProcess):
    """What the cells of a plan share."""

    plan: BenchPlan
    path: Path
    root: str | Path | None
    annotator: str | Path | None
    inception: str | Path | None
    device: torch.device

    @cached_property
    def data(self) -> LabelledImages:
        return load_data(self.plan.data, root=self.root, size=self.plan.size)

    @cached_property
    def test(self) -> LabelledImages:
        plan = self.plan
        test = load_data(plan.test or plan.data, root=self.root, train=plan.test is not None, size=plan.size)
        if plan.reference and plan.reference < len(test):
            order = torch.randperm(len(test), generator=rng(0, "reference"))
            test = test.subset(order[: plan.reference])
        return test

    @cached_property
    def judge(self) -> Judge:
        return Judge(
            load_classifier(self.annotator, device=self.device, precision="fp32")
            if self.annotator
            else self._train_annotator(),
            self.test,
            load_inception(self.inception, device=self.device) if self.inception else None,
            self.plan.cas,
            kid_blocks=10,
        )

    def prepare(self, wanted: list[BenchCell], cells: Cells) -> list[BenchCell]:
        """Trains the classifiers that several cells share, before any of them starts; returns the cells that have
        theirs.
        """
        _ = self.judge
        ready = []
        for cell in wanted:
            with cells.failing(cell.identity):
                if self.plan.recipe(cell).balance:
                    self._classifier(self._training_data(cell), cell.seed)
                ready.append(cell)
        return ready

    def cell(self, cell: BenchCell, cells: Cells) -> None:
        """Trains and scores one GAN."""
        cells.attempt(cell.identity, partial(self._measure, cell))

    def _measure(self, cell: BenchCell) -> Record:
        recipe, started = self.plan.recipe(cell), time.monotonic()
        data = self._training_data(cell)
        trained = train_generator(
            data,
            recipe,
            folder=self.path / "gans" / cell.key.replace("/", "-"),
            classifier=self._classifier(data, cell.seed) if recipe.balance else None,
            seed=cell.seed,
            device=self.device,
            save_every=max(recipe.images // 4, recipe.batch),
        )
        seconds = time.monotonic() - started
        images, labels = trained.sample(self.plan.samples, seed=cell.seed)
        scores = self.judge.score(images, labels, trained.counts)
        self._sheet(cell, images)
        return {"seconds": round(seconds, 1), "counts": trained.counts.tolist(), "scores": scores}

    def _training_data(self, cell: BenchCell) -> LabelledImages:
        return long_tailed(self.data, cell.imbalance, kind=self.plan.kind, n_max=self.plan.n_max)

    def _classifier(self, data: LabelledImages, seed: int) -> Victim:
        """In the loop: trained on the same long-tailed images, with the seed of the GAN."""
        folder = self.path / "classifiers" / f"{data.name}-{seed}"
        return train_classifier(data, self.plan.classifier, folder=folder, seed=seed, device=self.device)

    def _train_annotator(self) -> Victim:
        return train_classifier(
            self.data,
            self.plan.annotator,
            folder=self.path / "classifiers" / "annotator",
            test=self.test,
            seed=max(self.plan.seeds) + 1,
            device=self.device,
            precision="fp32",
        )

    def _sheet(self, cell: BenchCell, images: Tensor) -> None:
        file = self.path / "samples" / f"{cell.key.replace('/', '-')}.png"
        save_grid(by_class(self.judge.annotator, images) / 255, file, columns=GRID)


def _headline(line: dict[str, Any]) -> str:
    if failed(line):
        return str(line["key"])
    kl, distance = (line["scores"][name]["value"] for name in ("kl", "Frechet-annotator"))
    return f"{line['key']}: KL {kl:.3f} nats, Fréchet (annotator) {distance:.2f}; {line['seconds']:.0f} s"
