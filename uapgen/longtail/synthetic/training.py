"""A classifier trained on generated (or real) images, with its best and its last accuracy on real test images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ...victims import Victim
from ..classifier import train_classifier
from ..classifier.recipe import Recipe
from ..data import LabelledImages, Stream

# Slim, 2020, appendix A.1: 180 epochs, a tenth of the rate at 100 and at 150. The augmentation is the source's.
PUBLISHED = Recipe(
    depth=20,
    width=64,
    loss="ce",
    deferred=False,
    epochs=180,
    batch=125,
    weight_decay=1e-4,
    warmup=0,
    decay_at=(100 / 180, 150 / 180),
    decays=(0.1, 0.01),
)


@dataclass(frozen=True)
class Outcome:
    """`last_accuracy` is the result. `best_accuracy`, of `best_epoch`, is what is published: the best of all epochs,
    chosen on the test set, so that it flatters. `epochs` is how many there were.
    """

    classifier: Victim
    best_accuracy: float
    best_epoch: int
    last_accuracy: float
    epochs: int


def train_on(
    data: LabelledImages | Stream,
    recipe: Recipe,
    *,
    folder: str | Path,
    test: LabelledImages,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Outcome:
    """Trains as `train_classifier` does, tests after each epoch, and continues what `folder` holds.

    data: `Source.dataset` (with a recipe of pad 0 and flip False: the set is frozen), `Source.stream`, or real images.
    `classifier` has the weights of the last epoch.
    """
    victim = train_classifier(
        data, recipe, folder=folder, test=test, test_every=1, seed=seed, device=device, precision=precision
    )
    log = [json.loads(line) for line in (Path(folder) / "stats.jsonl").read_text().splitlines()]
    tested = {int(entry["epoch"]): float(entry["test_accuracy"]) for entry in log}
    best = max(tested, key=lambda epoch: tested[epoch])
    return Outcome(victim, tested[best], best, tested[max(tested)], len(tested))
