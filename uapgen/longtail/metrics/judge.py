"""An annotator's and FID's view of samples: all figures at once, and sheets ordered by class."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UsageError
from ...runtime import rng
from ...victims import Victim
from ..classifier import train_classifier
from ..classifier.recipe import Recipe
from ..data import LabelledImages
from . import (
    FidInception,
    accuracy_figure,
    annotator_features,
    class_figures,
    classification_accuracy_score,
    distance_figures,
    similarity_figure,
    within_classes,
)
from .features import Features


@dataclass
class Judge:
    """Who scores, and against what; features of the reference are taken once.

    annotator: labels samples; trained on balanced data, and never the classifier that trained the generator.
    reference: real images, such as the test part. train_counts: training images of each class (K,), for the halves.
    inception: for FID (or FID-768), besides the distance in the annotator's features. cas: how the classifier of the
    classification accuracy score is trained; None leaves it out. pairs: a class, of MS-SSIM.
    """

    annotator: Victim
    reference: LabelledImages
    inception: FidInception | None = None
    cas: Recipe | None = None
    kid_blocks: int = 100
    pairs: int = 200
    seed: int = 0
    _real: dict[str, Features] = field(default_factory=dict)

    def score(self, images: Tensor, labels: Tensor | None, train_counts: Tensor) -> dict[str, dict[str, Any]]:
        """Figures of images (N,3,H,W) uint8 by name; labels (N,) that they were made for, or None.

        Samples without labels are split into halves and classes by the annotator's argmax. Raises UsageError when
        annotator, reference and training counts have different numbers of classes.
        """
        k = self.annotator.num_classes
        if not k == self.reference.num_classes == len(train_counts):
            others = f"the reference {self.reference.num_classes}, the training data {len(train_counts)}"
            raise UsageError(f"{self.annotator.name} has {k} classes, {others}; expected equal numbers")
        seen = annotator_features(self.annotator, images)
        assert seen.logits is not None
        predicted = seen.logits.argmax(1)
        own = predicted if labels is None else labels
        figures = class_figures(seen, k)
        if labels is not None:
            figures["label agreement"] = self._agreement(predicted, labels)
        figures |= self._distances("annotator", seen, own, train_counts)
        if self.inception:
            figures |= self._distances("inception", self.inception.features(images), own, train_counts)
        similar = within_classes(images, own, k, rng(self.seed, "ms-ssim"), pairs=self.pairs)
        figures |= similarity_figure(similar, len(images), (images.shape[2], images.shape[3]))
        if self.cas:
            figures |= self._usefulness(images, own)
        return figures

    def _agreement(self, predicted: Tensor, labels: Tensor) -> dict[str, Any]:
        """Share of samples that the annotator takes for what they were made for."""
        share = float((predicted == labels).double().mean())
        about = {"network": self.annotator.name, "weights_sha256": self.annotator.weights_sha256}
        return {"value": share, "n": len(labels), "reference": "the labels asked for", "n_reference": None, **about}

    def _distances(self, eyes: str, fake: Features, labels: Tensor, train_counts: Tensor) -> dict[str, Any]:
        if eyes not in self._real:
            held = self.reference.images
            self._real[eyes] = (
                self.inception.features(held)
                if eyes == "inception" and self.inception
                else annotator_features(self.annotator, held)
            )
        return distance_figures(
            fake,
            self._real[eyes],
            self.reference.name,
            labels,
            self.reference.labels,
            train_counts,
            rng(self.seed, "kid"),
            kid_blocks=self.kid_blocks,
        )

    def _usefulness(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """The classification accuracy score. The recipe's loss weighs no class: some may have no sample."""
        assert self.cas is not None
        recipe = dataclasses.replace(self.cas, loss="ce", deferred=False)
        real, k = self.reference, self.annotator.num_classes

        def train(samples: Tensor, given: Tensor) -> Victim:
            held = LabelledImages(samples, given, k, "samples", flips=real.flips)
            with tempfile.TemporaryDirectory() as scratch:
                return train_classifier(
                    held, recipe, folder=Path(scratch), seed=self.seed, device=self.annotator.device, precision="fp32"
                )

        accuracy = classification_accuracy_score(train, images, labels, real.images, real.labels, k)
        name = f"ResNet-{recipe.depth}, width {recipe.width}, {recipe.epochs} epochs on samples"
        return accuracy_figure(accuracy, real.name, name)


GRID = 10  # samples of each class


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
