"""How a classifier fares under a universal perturbation, on labelled images that lie in memory."""

from __future__ import annotations

from typing import Any

import torch

from ...evaluation.fooling import noise_floors
from ...evaluation.results import count_row
from ...perturbation import Perturbation
from ...victims import Victim
from ..data import LabelledImages


@torch.no_grad()
def predictions(classifier: Victim, data: LabelledImages, *, batch: int = 512) -> torch.Tensor:
    """Top-1 classes (N,) int64, on the CPU."""
    parts = data.images.split(batch)
    return torch.cat([classifier(x.to(classifier.device).float().div_(255)).argmax(1).cpu() for x in parts])


def under_uap(classifier: Victim, data: LabelledImages, uap: Perturbation, *, seed: int = 0) -> dict[str, Any]:
    """Clean accuracy, fooling rate, accuracy under `uap`, and the fooling rate of random signs of its size (the floor).

    Perturbed images are clipped and rounded to 8 bits; a pattern of another size is resized to theirs. Rates are as
    `Rate.to_json` gives them.
    """
    clean, labels = predictions(classifier, data), data.labels.cpu()
    rows = []
    for pattern in (uap, *noise_floors([uap.resized(data.size)], seed)):
        changed = LabelledImages(pattern.apply(data.images, resize=True), data.labels, data.num_classes, data.name)
        found = predictions(classifier, changed)
        rows.append(count_row(clean, found, labels, classifier.num_classes, pattern.card))
    row, floor = rows
    assert row.adversarial_accuracy is not None
    return {
        "clean_accuracy": float((clean == labels).double().mean()),
        "fooling_rate": row.fooling_rate.to_json(),
        "adversarial_accuracy": row.adversarial_accuracy.to_json(),
        "floor": floor.fooling_rate.to_json(),
        "resized": uap.size != data.size,
    }
