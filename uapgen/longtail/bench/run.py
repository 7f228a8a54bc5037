"""`uapgen gan bench`: trains every GAN of a plan, scores it, and keeps a line for each, so that a run can go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UapgenError
from ...experiments.jobs import in_processes
from ...experiments.records import Lines
from ...gan import save_grid
from ...runfolder import RunFolder
from ...runtime import resolve_device, rng
from ...victims import Victim
from ...victims.trained import load_classifier
from ..classifier.training import train_classifier
from ..data import LabelledImages, long_tailed
from ..generator import train_generator
from ..metrics import load_inception
from ..metrics.judge import GRID, Judge, by_class
from ..sources import load_data
from .plan import Cell, Plan

CELLS = "cells.jsonl"
Say = Callable[[str], None]


class Bench:
    """A plan in a folder: classifiers/, gans/, samples/ and CELLS.

    root: where the data lies. annotator: the file of a classifier, in place of one that is trained here on all training
    images with a seed that no classifier in the loop has. inception: the file of FID's network.
    Raises UsageError when `folder` holds another plan.
    """

    def __init__(
        self,
        plan: Plan,
        folder: str | Path,
        *,
        root: str | Path | None = None,
        annotator: str | Path | None = None,
        inception: str | Path | None = None,
        device: str | torch.device = "auto",
        say: Say = print,
    ) -> None:
        self.plan, self.path, self.device, self.say = plan, Path(folder), resolve_device(device), say
        self.files: dict[str, Any] = {"root": root, "annotator": annotator, "inception": inception}
        self.data = load_data(plan.data, root=root, size=plan.size)
        self.test = load_data(plan.test or plan.data, root=root, train=plan.test is not None, size=plan.size)
        if plan.reference and plan.reference < len(self.test):
            order = torch.randperm(len(self.test), generator=rng(0, "reference"))
            self.test = self.test.subset(order[: plan.reference])
        hashes = {"data_sha256": self.data.sha256, "test_sha256": self.test.sha256}
        given = {name: Path(file).name for name, file in self.files.items() if file and name != "root"}
        RunFolder(self.path, {**asdict(plan), **hashes, **given})
        self.lines = Lines(self.path / CELLS)
        self._judge: Judge | None = None

    def run(self, jobs: int = 1) -> list[dict[str, Any]]:
        """Does what is missing, `jobs` GANs at a time, each in a process with its share of the CPU; returns all lines.

        A GAN whose loss stops being finite is a line with its error.
        """
        done = {line["key"] for line in self.lines.read()}
        cells = list(self.plan.cells())
        missing = [cell for cell in cells if cell.key not in done]
        self.say(f"{len(cells)} GANs, {len(missing)} of them to train")
        if missing:
            self._prepare(missing)
        for number, line in enumerate(self._lines(missing, jobs), len(cells) - len(missing) + 1):
            self.lines.append(line)
            self.say(f"{number}/{len(cells)} {line['key']}: {_summary(line)}")
        order = {cell.key: place for place, cell in enumerate(cells)}
        return sorted(self.lines.read(), key=lambda line: order[line["key"]])

    def _lines(self, cells: list[Cell], jobs: int) -> Iterator[dict[str, Any]]:
        """A line for each cell, as they are done."""
        if jobs == 1 or len(cells) < 2:
            return map(self.cell, cells)
        return in_processes(_work, cells, jobs, _start, (self.plan, self.path, self.files, self.device))

    def _prepare(self, cells: list[Cell]) -> None:
        """Classifiers that several cells share, before any of them starts."""
        self.judge()
        for cell in cells:
            if self.plan.recipe(cell).balance:
                self._classifier(self._training_data(cell), cell.seed)

    def _training_data(self, cell: Cell) -> LabelledImages:
        return long_tailed(self.data, cell.imbalance, kind=self.plan.kind, n_max=self.plan.n_max)

    def cell(self, cell: Cell) -> dict[str, Any]:
        """Trains and scores one GAN."""
        recipe, started = self.plan.recipe(cell), time.monotonic()
        data = self._training_data(cell)
        about = {"key": cell.key, "imbalance": cell.imbalance, "method": cell.method, "seed": cell.seed}
        try:
            trained = train_generator(
                data,
                recipe,
                folder=self.path / "gans" / cell.key.replace("/", "-"),
                classifier=self._classifier(data, cell.seed) if recipe.balance else None,
                seed=cell.seed,
                device=self.device,
                save_every=max(recipe.images // 4, recipe.batch),
            )
        except UapgenError as error:
            return {**about, "error": str(error)}
        seconds = time.monotonic() - started
        images, labels = trained.sample(self.plan.samples, seed=cell.seed)
        scores = self.judge().score(images, labels, trained.counts)
        self._sheet(cell, images)
        return {**about, "seconds": round(seconds, 1), "counts": trained.counts.tolist(), "scores": scores}

    def _classifier(self, data: LabelledImages, seed: int) -> Victim:
        """In the loop: trained on the same long-tailed images, with the seed of the GAN."""
        folder = self.path / "classifiers" / f"{data.name}-{seed}"
        return train_classifier(data, self.plan.classifier, folder=folder, seed=seed, device=self.device)

    def judge(self) -> Judge:
        if self._judge is None:
            file, inception = self.files["annotator"], self.files["inception"]
            self._judge = Judge(
                load_classifier(file, device=self.device, precision="fp32") if file else self._train_annotator(),
                self.test,
                load_inception(inception, device=self.device) if inception else None,
                self.plan.cas,
                kid_blocks=10,
            )
        return self._judge

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

    def _sheet(self, cell: Cell, images: Tensor) -> None:
        save_grid(
            by_class(self.judge().annotator, images) / 255,
            self.path / "samples" / f"{cell.key.replace('/', '-')}.png",
            columns=GRID,
        )


_worker: Bench


def _start(plan: Plan, path: Path, files: dict[str, Any], device: torch.device) -> None:
    """Of a worker process."""
    global _worker
    _worker = Bench(plan, path, **files, device=device)


def _work(cell: Cell) -> dict[str, Any]:
    return _worker.cell(cell)


def _summary(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"failed: {line['error']}"
    kl, distance = (line["scores"][name]["value"] for name in ("kl", "Frechet-annotator"))
    return f"KL {kl:.3f} nats, Fréchet (annotator) {distance:.2f}; {line['seconds']:.0f} s"
