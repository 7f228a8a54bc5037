"""`uapgen gan bench`: trains every GAN of a plan, scores it, and keeps a line for each, so that a run can go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UapgenError
from ..gan import save_grid
from ..lines import Lines
from ..runfolder import RunFolder
from ..runtime import rng
from ..victims import Victim
from .bench_plan import Cell, Plan
from .classifier import train_classifier
from .data import LabelledImages
from .generator import train_generator
from .metrics import FidInception
from .scoring import Judge
from .sources import load_data
from .splits import long_tailed

CELLS = "cells.jsonl"
GRID = 10  # samples of each class in a sheet
Say = Callable[[str], None]


class Bench:
    """A plan in a folder: classifiers/, gans/, samples/ and CELLS.

    root: where the data lies. annotator: in place of one that is trained here on all training images, with a seed that
    no classifier in the loop has. Raises UsageError when `folder` holds another plan.
    """

    def __init__(
        self,
        plan: Plan,
        folder: str | Path,
        *,
        root: str | Path | None = None,
        annotator: Victim | None = None,
        inception: FidInception | None = None,
        device: str | torch.device = "auto",
        say: Say = print,
    ) -> None:
        self.plan, self.path, self.device, self.say = plan, Path(folder), device, say
        self.data = load_data(plan.data, root=root, size=plan.size)
        self.test = load_data(plan.test or plan.data, root=root, train=plan.test is not None, size=plan.size)
        if plan.reference and plan.reference < len(self.test):
            self.test = self.test.subset(
                torch.randperm(len(self.test), generator=rng(0, "reference"))[: plan.reference]
            )
        given = annotator.weights_sha256 if annotator else None
        about = {"data_sha256": self.data.sha256, "test_sha256": self.test.sha256, "annotator_sha256": given}
        RunFolder(self.path, {**asdict(plan), **about})
        self.lines = Lines(self.path / CELLS)
        self.inception = inception
        self._annotator = annotator
        self._judge: Judge | None = None

    def run(self) -> list[dict[str, Any]]:
        """Does what is missing, and returns all lines. A GAN whose loss stops being finite is a line with its error."""
        done = {line["key"] for line in self.lines.read()}
        cells = list(self.plan.cells())
        self.say(f"{len(cells)} GANs, {len([c for c in cells if c.key not in done])} of them to train")
        for number, cell in enumerate(cells, 1):
            if cell.key not in done:
                line = self._cell(cell)
                self.lines.append(line)
                self.say(f"{number}/{len(cells)} {cell.key}: {_summary(line)}")
        return self.lines.read()

    def _cell(self, cell: Cell) -> dict[str, Any]:
        recipe, started = self.plan.recipe(cell), time.monotonic()
        data = long_tailed(self.data, cell.imbalance, kind=self.plan.kind, n_max=self.plan.n_max)
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
            annotator = self._annotator or self._train_annotator()
            self._judge = Judge(annotator, self.test, self.inception, self.plan.cas, kid_blocks=10)
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


@torch.no_grad()
def by_class(annotator: Victim, images: Tensor, each: int = GRID) -> Tensor:
    """The first `each` of images (N,3,H,W) uint8 that the annotator takes for each class, (K each, 3,H,W) float, class
    by class; black where there are fewer.
    """
    predicted = torch.cat([annotator(x.to(annotator.device).float() / 255).argmax(1).cpu() for x in images.split(512)])
    sheet = torch.zeros(annotator.num_classes, each, *images.shape[1:])
    for k in range(annotator.num_classes):
        found = images[predicted == k][:each].float()
        sheet[k, : len(found)] = found
    return sheet.flatten(0, 1)


def _summary(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"failed: {line['error']}"
    kl, distance = (line["scores"][name]["value"] for name in ("kl", "Frechet-annotator"))
    return f"KL {kl:.3f} nats, Fréchet (annotator) {distance:.2f}; {line['seconds']:.0f} s"
