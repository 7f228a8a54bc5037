"""Classification accuracy score: train a classifier on samples, test it on real images (Ravuri, Vinyals, 2019).

It is low when samples are unlike the real images, when classes are confused, and when a class is missing or uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import UsageError
from ...evaluation.intervals import Rate
from .class_kl import class_counts
from .features import batches

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
