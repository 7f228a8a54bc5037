"""What the metrics say of a source of images: variety within classes, distance to the test images, agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ...runtime import rng
from ...victims import Victim
from ..data import LabelledImages
from ..metrics import Moments, annotator_features, frechet_distance, within_classes

if TYPE_CHECKING:
    from .plan import Grid, Samples


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
