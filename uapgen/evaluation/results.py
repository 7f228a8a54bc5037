"""What an evaluation found, in counts and rates, and what stands between a measured rate and a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..images.sets import ImageSet
from ..perturbation.card import OPEN, Card
from ..schema import make
from ..victims import Victim
from .comparison import VictimFacts
from .document import ImagesEntry
from .intervals import Rate

UNREAD = -1  # in predictions: the image could not be decoded

DEFINITIONS = """\
clean prediction     the victim's top-1 class for an image x as its own preprocessing gives it
adversarial image    clip(x + delta, 0, 1), then rounded to 8 bits (unless --no-quantize)
fooling rate         share of all images whose top-1 class under the perturbation differs from the victim's own clean
                     prediction; needs no labels
clean, adv accuracy  share of the labelled images that are classified as labelled, without and with the perturbation
success|correct      among the images that are classified correctly when clean, the share that is wrong with the
                     perturbation
noise floor          the fooling rate of one random sign pattern of the same size and norm; a perturbation is worth what
                     it adds to this
targeted             share of images classified as the target class: over all, and without the images that belong to it
                     (by label, or by clean prediction where the label is unknown)
defence              a transformation of the input before the victim. Its fooling rate compares defended images with
                     defended images: the defence is part of the classifier, and a random one draws the same for both
vs undefended        share of images whose class, perturbed and defended, differs from the clean one without defence
moved by defence     the same without any perturbation: the floor of "vs undefended"
per image            attacks that see each image (foolbox), at the same bound: what a universal pattern could reach at
                     most; projected gradient descent starts at the perturbation
top adv classes      the classes that the perturbed images go to most often
95% CI               Wilson's score interval for the images drawn; it knows nothing of seeds or of other data
* white box          the perturbation was crafted on this very victim (same weights)
"""


@dataclass(frozen=True)
class Row:
    """One perturbation on one victim. Accuracies are None without labels, `targeted` without a target.

    `histogram` (K,) int64 counts the classes of the perturbed images; `targeted` is over all images, and over those
    that are not of the target class.
    """

    method: str
    norm: str
    eps: float
    white_box: bool
    n: int
    fooling_rate: Rate
    adversarial_accuracy: Rate | None
    success_on_correct: Rate | None
    targeted: tuple[Rate, Rate] | None
    histogram: Tensor

    def dominant(self, k: int = 5) -> list[tuple[int, int]]:
        """(class, images) of the k classes that most perturbed images go to; equal counts in class order."""
        counts = [(index, int(count)) for index, count in enumerate(self.histogram.tolist()) if count]
        return sorted(counts, key=lambda entry: (-entry[1], entry[0]))[:k]


@dataclass(frozen=True)
class Predictions:
    """Top-1 classes int64: `clean` (N,) and `adv` (perturbations, N), -1 where not read; `labels` (N,), -1 unknown.

    Behind each of `defences`: `defended_clean` (defences, N) and `defended_adv` (defences, perturbations, N).
    """

    files: list[str]
    labels: Tensor
    clean: Tensor
    adv: Tensor
    defences: list[str]
    defended_clean: Tensor
    defended_adv: Tensor


@dataclass(frozen=True)
class Defended:
    """Perturbations behind one defence. Their `fooling_rate` compares defended with defended; `undefended` holds, for
    each of `rows`, the share whose class differs from the undefended clean one. `changed` is the share of clean images
    whose class the defence changes by itself: the floor of the latter, as `noise` is of the former.
    """

    name: str
    changed: Rate
    clean_accuracy: Rate | None
    rows: list[Row]
    undefended: list[Rate]
    noise: list[Row]


@dataclass(frozen=True)
class Reference:
    """An attack that sees each image, started at perturbation number `uap`, or (None) at the image itself."""

    uap: int | None
    steps: int | None
    row: Row


@dataclass(frozen=True)
class Evaluation:
    """Perturbations on one victim over one set of images: `rows` in the order given, `noise` one per (norm, eps)."""

    victim: VictimFacts
    n: int
    clean_accuracy: Rate | None
    rows: list[Row]
    noise: list[Row]
    predictions: Predictions
    data: ImagesEntry
    quantized: bool
    seed: int
    warnings: list[str]
    seconds: float
    environment: dict[str, Any]
    defended: list[Defended] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)

    def floor(self, row: Row) -> Row | None:
        """The random perturbation of `row`'s norm and eps, or None if it was not asked for."""
        return find_floor(self.noise, row)


def find_floor(noise: Sequence[Row], row: Row) -> Row | None:
    """The one of `noise` that has `row`'s norm and eps."""
    return next((floor for floor in noise if (floor.norm, floor.eps) == (row.norm, row.eps)), None)


@dataclass(frozen=True)
class Subject:
    """What a row is about: a pattern (or an attack that sees each image), its bound in pixel units, the class that it
    aims at, and whether it was crafted on the very victim.
    """

    method: str
    norm: str
    eps: float
    target: int | None = None
    white_box: bool = False

    @classmethod
    def of(cls, card: Card, weights_sha256: str | None = None) -> Subject:
        """A perturbation by its card, measured on a victim of these weights."""
        own = weights_sha256 is not None and card.crafted_on(weights_sha256)
        return cls(card.method.name, card.budget.norm, card.budget.eps, card.target, own)


def count_row(clean: Tensor, adv: Tensor, labels: Tensor, num_classes: int, subject: Subject) -> Row:
    """Counts from predictions and labels (N,) int64; images with `clean` = -1 are left out."""
    read = clean != UNREAD
    clean, adv, labels = clean[read], adv[read], labels[read]
    n, known = len(clean), labels >= 0
    changed, correct = clean != adv, known & (clean == labels)
    labelled = int(known.sum())
    target = subject.target if subject.target is not None and 0 <= subject.target < num_classes else None
    return Row(
        method=subject.method,
        norm=subject.norm,
        eps=float(subject.eps),
        white_box=subject.white_box,
        n=n,
        fooling_rate=Rate(int(changed.sum()), n),
        adversarial_accuracy=Rate(int((known & (adv == labels)).sum()), labelled) if labelled else None,
        success_on_correct=Rate(int((changed & correct).sum()), int(correct.sum())) if labelled else None,
        targeted=_targeted(clean, adv, labels, target) if target is not None else None,
        histogram=torch.bincount(adv, minlength=num_classes),
    )


def _targeted(clean: Tensor, adv: Tensor, labels: Tensor, target: int) -> tuple[Rate, Rate]:
    hit = adv == target
    other = torch.where(labels >= 0, labels, clean) != target
    return Rate(int(hit.sum()), len(hit)), Rate(int((hit & other).sum()), int(other.sum()))


def clean_accuracy(clean: Tensor, labels: Tensor) -> Rate | None:
    """Over the images that were read and have a label; None when there is none."""
    known = (clean != UNREAD) & (labels >= 0)
    n = int(known.sum())
    return Rate(int((known & (clean == labels)).sum()), n) if n else None


def describe_data(images: ImageSet, corrupt: Sequence[tuple[int, str]]) -> ImagesEntry:
    """Which images these were; `corrupt` holds (position, reason)."""
    broken = [{"file": images.names[position], "reason": reason} for position, reason in corrupt]
    return make(ImagesEntry, {**images.describe(), "corrupt": broken}, "the images", rules=OPEN)


FEW_IMAGES = 1000


def find_warnings(
    cards: Sequence[dict[str, Any]],
    victim: Victim,
    images: ImageSet,
    n: int,
    accuracy: Rate | None,
    corrupt: Sequence[tuple[int, str]],
) -> list[str]:
    """What a reader should know before believing the rates of `n` images; `corrupt` holds (position, reason)."""
    found = [*(f"{victim.name}: {text}" for text in victim.warnings), *images.notes]
    if victim.weights == "random":
        found.append(f"{victim.name} has random weights: its rates say nothing about any trained model")
    if n < FEW_IMAGES:
        low, high = Rate(n // 2, n).ci95
        found.append(f"n = {n} is below {FEW_IMAGES}: a rate near 50% is known to +-{50 * (high - low):.0f} points")
    if corrupt:
        found.append(f"{len(corrupt)} images could not be read and were left out, first {images.names[corrupt[0][0]]}")
    if accuracy is not None and accuracy.ci95[0] <= 1 / victim.num_classes:
        found.append(f"clean accuracy {accuracy}% is not above chance: do the labels belong to this victim?")
    return found + [text for card in cards for text in _overlap(card, images)]


def _overlap(card: dict[str, Any], images: ImageSet) -> list[str]:
    if images.made_on(card["data"].get("sources")):
        return [f"{card['method']['name']} was crafted on images of this very folder: its rates are training rates"]
    return []
