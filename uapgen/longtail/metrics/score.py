"""The score: a JSON-ready dict in which every figure says on how many images, against what, and by whose eyes.

    score = {}
    score |= class_figures(annotated, 10)
    score |= distance_figures(fake, real, "cifar10/test", fake_labels, real_labels, counts, generator)

Keys: `kl`, `kl_smoothed`; `FID`, `KID`, `precision`, `recall` with the FID network; `FID-768`, `KID-768`,
`precision-768`, ... with its cut; `Frechet-annotator`, `MMD-annotator`, `precision-annotator`, ... with a classifier;
the Fréchet distances also as `NAME/majority` and `NAME/minority`; `MS-SSIM`; `CAS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import UsageError
from ...evaluation.intervals import Rate
from .class_kl import AUTHORS_SMOOTHING, class_counts, kl_to_uniform, sampling_floor
from .distances import kid, precision_recall
from .features import ANNOTATOR, Features, batches, check_same_network, frechet_by_half
from .ms_ssim import Similarity

Figure = dict[str, Any]
SUFFIXES = {"FID": "", "FID-768": "-768", ANNOTATOR: "-annotator"}


def seen_by(features: Features) -> Figure:
    """The part of an entry that says whose features and which resize."""
    return {
        "network": features.network,
        "weights_sha256": features.weights_sha256,
        "resize": features.resize,
    }


def class_figures(annotated: Features, num_classes: int) -> dict[str, Figure]:
    """`kl` and `kl_smoothed` of the annotator's argmax labels, with the histogram and an even generator's floor."""
    if annotated.logits is None:
        raise UsageError(f"{annotated.network} gives no logits; the class KL needs an annotator")
    counts = class_counts(annotated.logits.argmax(1), num_classes)
    n = len(annotated)
    common = {"unit": "nats", "n": n, "reference": "uniform", "n_reference": None, **seen_by(annotated)}
    return {
        "kl": {
            "value": kl_to_uniform(counts),
            **common,
            "floor": sampling_floor(num_classes, n),
            "histogram": counts.tolist(),
        },
        "kl_smoothed": {
            "value": kl_to_uniform(counts, AUTHORS_SMOOTHING),
            **common,
            "smoothing": AUTHORS_SMOOTHING,
        },
    }


def distance_figures(
    fake: Features,
    real: Features,
    reference: str,
    fake_labels: Tensor,
    real_labels: Tensor,
    train_counts: Tensor,
    generator: torch.Generator,
    *,
    kid_blocks: int = 100,
    kid_block_size: int = 1000,
    neighbours: int = 3,
) -> dict[str, Figure]:
    """Fréchet distances (all, majority, minority), KID, precision and recall in the features of one network.

    reference: the name of the real set, such as `cifar10/test`. A Fréchet entry with fewer images than feature
    dimensions carries a `caveat`: its covariance is singular and the distance is biased upwards.
    """
    check_same_network(fake, real)
    about = {"reference": reference, **seen_by(fake)}
    figures: dict[str, Figure] = {}
    for name, (value, n, n_real) in frechet_by_half(fake, fake_labels, real, real_labels, train_counts).items():
        entry = {"value": value, "n": n, "n_reference": n_real, **about}
        if min(n, n_real) <= fake.values.shape[1]:
            entry["caveat"] = f"{min(n, n_real)} images for {fake.values.shape[1]} dimensions: biased upwards"
        figures[fake.distance if name == "all" else f"{fake.distance}/{name}"] = entry
    sizes = {"n": len(fake), "n_reference": len(real)}
    blocks = kid(fake.values, real.values, generator, blocks=kid_blocks, block_size=kid_block_size)
    suffix = SUFFIXES[fake.distance]
    figures["MMD-annotator" if fake.distance == ANNOTATOR else f"KID{suffix}"] = {
        "value": blocks.mean,
        "std_over_blocks": blocks.std,
        "blocks": blocks.blocks,
        "block_size": blocks.block_size,
        **sizes,
        **about,
    }
    shares = precision_recall(fake.values, real.values, k=neighbours)
    for name, rate in zip(("precision", "recall"), shares, strict=True):
        figures[name + suffix] = {"value": rate.value, "ci95": list(rate.ci95), "k": neighbours, **sizes, **about}
    return figures


def similarity_figure(similarity: Similarity, n: int, size: tuple[int, int]) -> dict[str, Figure]:
    """`MS-SSIM` within classes, over pairs of `n` samples of `size` (H,W); no network and no reference."""
    per_class = [None if value != value else value for value in similarity.per_class.tolist()]  # NaN is no JSON
    entry = {"value": similarity.mean, "std_over_pairs": similarity.std, "pairs": similarity.pairs, "n": n}
    about = {"reference": "pairs of one class", "n_reference": None, "network": None, "weights_sha256": None}
    detail = {"resize": f"none ({size[0]}x{size[1]})", "scales": similarity.scales, "per_class": per_class}
    return {"MS-SSIM": {**entry, **about, **detail}}


def accuracy_figure(
    accuracy: Accuracy, reference: str, classifier: str, resize: str = "none", *, name: str = "CAS"
) -> dict[str, Figure]:
    """`CAS`, or another `name`: accuracy on the real set `reference` of `classifier`, which was trained on samples.

    Its weights came from the samples, so they have no hash to state; `classifier` says the network and its recipe.
    """
    return {
        name: {
            "value": accuracy.top1.value,
            "ci95": list(accuracy.top1.ci95),
            "balanced": accuracy.balanced,
            "per_class": [rate.value for rate in accuracy.per_class],
            "n": sum(accuracy.trained_on),
            "trained_on": accuracy.trained_on,
            "reference": reference,
            "n_reference": accuracy.top1.n,
            "network": classifier,
            "weights_sha256": None,
            "resize": resize,
        }
    }


Classifier = Callable[[Tensor], Tensor]
Train = Callable[[Tensor, Tensor], Classifier]


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on all test images and on each class; `balanced` is the mean over the classes that have test images."""

    top1: Rate
    per_class: list[Rate]
    trained_on: list[int]

    @property
    def balanced(self) -> float:
        shares = [rate.value for rate in self.per_class if rate.value is not None]
        return sum(shares) / len(shares)


def classification_accuracy_score(
    train: Train,
    samples: Tensor,
    sample_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    num_classes: int,
    *,
    batch_size: int = 256,
) -> Accuracy:
    """Trains on (samples, sample_labels) and counts correct predictions on the test images.

    train: a function of images (N,3,H,W), as given, and labels (N,) that returns a classifier: (B,3,H,W) float in [0,1]
    -> logits (B,K), on the device of the test images. A Victim is one. `train` must not see the test images: take the
    last epoch, not the best one.
    sample_labels: the condition of a conditional generator, or an annotator's argmax for an unconditional one.
    """
    if len(samples) != len(sample_labels) or len(test_images) != len(test_labels):
        raise UsageError(
            f"{len(samples)} samples with {len(sample_labels)} labels, {len(test_images)} test images with "
            f"{len(test_labels)}; expected one label an image"
        )
    if not len(samples) or not len(test_images):
        raise UsageError("the classification accuracy score needs samples and test images; one of the sets is empty")
    trained_on = class_counts(sample_labels, num_classes)
    class_counts(test_labels, num_classes)
    classifier = train(samples, sample_labels)
    with torch.no_grad():
        predicted = torch.cat([classifier(x).argmax(1).cpu() for x in batches(test_images, batch_size)])
    return count_correct(predicted, test_labels, num_classes, trained_on.tolist())


def count_correct(predicted: Tensor, test_labels: Tensor, num_classes: int, trained_on: list[int]) -> Accuracy:
    """From the predicted and the true classes (N,) of the test images."""
    truth = test_labels.cpu()
    correct = predicted.cpu() == truth
    per_class = [Rate(int(correct[truth == k].sum()), int((truth == k).sum())) for k in range(num_classes)]
    return Accuracy(Rate(int(correct.sum()), len(correct)), per_class, trained_on)
