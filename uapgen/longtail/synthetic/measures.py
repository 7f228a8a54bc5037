"""What is measured of classifiers (under a universal perturbation) and of sources of generated images (variety within
classes, distance to the test images, agreement).
"""

from __future__ import annotations

from typing import Any

import torch

from ...evaluation.fooling import noise_floors
from ...evaluation.results import Subject, count_row
from ...perturbation import Perturbation
from ...runtime import rng
from ...victims import Victim
from ..data import LabelledImages
from ..metrics import Moments, annotator_features, frechet_distance, within_classes
from .plan import Grid, Samples


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
        rows.append(count_row(clean, found, labels, classifier.num_classes, Subject.of(pattern.facts)))
    row, floor = rows
    assert row.adversarial_accuracy is not None
    return {
        "clean_accuracy": float((clean == labels).double().mean()),
        "fooling_rate": row.fooling_rate.to_json(),
        "adversarial_accuracy": row.adversarial_accuracy.to_json(),
        "floor": floor.fooling_rate.to_json(),
        "resized": uap.size != data.size,
    }


def describe_images(
    images: LabelledImages, test: LabelledImages, annotator: Victim, samples: Samples, grid: Grid, seed: int
) -> dict[str, Any]:
    """A JSON-ready row of at most `samples.images` of `images` (drawn at random), against the real test images.

    annotator_accuracy: how often the classifier of real images says the label; passes_filter: and with at least the
    filter's probability. The Fréchet distance is in the annotator's features, which is not an FID.
    """
    order = torch.randperm(len(images), generator=rng(seed, "describe"))[: samples.images]
    shown = images.subset(order)
    fake, real = annotator_features(annotator, shown.images), annotator_features(annotator, test.images)
    assert fake.logits is not None
    labels = shown.labels.cpu()
    similar = within_classes(shown.images, labels, images.num_classes, rng(seed, "describe-pairs"), pairs=samples.pairs)
    right = fake.logits.argmax(1) == labels
    sure = fake.logits.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1) >= grid.threshold
    return {
        "n": len(shown),
        "n_test": len(test),
        "ms_ssim": similar.mean,
        "ms_ssim_std_over_pairs": similar.std,
        "ms_ssim_scales": similar.scales,
        "pairs": similar.pairs,
        "frechet_annotator": frechet_distance(Moments.of(fake.values), Moments.of(real.values)),
        "annotator": annotator.weights_sha256,
        "annotator_accuracy": float(right.double().mean()),
        "passes_filter": float((right & sure).double().mean()),
    }
