"""Long-tailed subsets of balanced data, by the rule and the random order that the literature has used since 2019.

Cao, Wei, Gaidon, Arechiga, Ma, "Learning imbalanced datasets with label-distribution-aware margin loss", 2019.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ..errors import UsageError
from .data import LabelledImages

KINDS = ("exp", "step")


def long_tailed_counts(n_max: int, num_classes: int, imbalance: float, kind: str = "exp") -> list[int]:
    """Images of each class, head first: class 0 has n_max, the last one n_max / imbalance.

    exp: n_k = floor(n_max (1 / imbalance)^(k / (K - 1))); step: the first floor(K / 2) classes are full, the others
    have floor(n_max / imbalance). Raises UsageError for arguments out of range and for a class that would be empty.
    """
    if kind not in KINDS:
        raise UsageError(f"imbalance kind {kind!r} is unknown; expected {' or '.join(KINDS)}")
    if num_classes < 2:
        raise UsageError(f"a long tail needs at least 2 classes, not {num_classes}")
    if not 1 <= imbalance < float("inf"):
        raise UsageError(f"imbalance {imbalance} is out of range; expected largest class / smallest class, at least 1")
    share = 1 / imbalance
    if kind == "exp":
        counts = [int(n_max * share ** (k / (num_classes - 1))) for k in range(num_classes)]
    else:
        head = num_classes // 2
        counts = [n_max] * head + [int(n_max * share)] * (num_classes - head)
    if counts[-1] < 1:
        raise UsageError(
            f"at imbalance {imbalance:g} a class would have no image ({n_max} in the largest); "
            f"expected an imbalance of at most {n_max}"
        )
    return counts


def long_tailed(
    data: LabelledImages,
    imbalance: float,
    *,
    kind: str = "exp",
    n_max: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> LabelledImages:
    """A subset with the classes in label order, `long_tailed_counts` images of each.

    n_max: of class 0; default: as many as the smallest class holds, the published choice for balanced sets.
    seed: 0 gives the very images that the published CIFAR splits hold: numpy's RandomState(seed) shuffles the
    positions of class after class. `shuffle=False` takes the first ones instead, the published choice for LSUN.
    Raises UsageError when a class has fewer images than asked.
    """
    data.require_every_class()
    available = data.counts().tolist()
    wanted = long_tailed_counts(n_max or min(available), data.num_classes, imbalance, kind)
    labels, order, chosen = data.labels.cpu().numpy(), np.random.RandomState(seed), []
    for k, (n, held) in enumerate(zip(wanted, available, strict=True)):
        if n > held:
            raise UsageError(f"{data.name}: class {k} has {held} images, {n} are asked for; lower n_max")
        positions = np.flatnonzero(labels == k)
        if shuffle:
            order.shuffle(positions)
        chosen.append(positions[:n])
    suffix = "" if kind == "exp" else f"-{kind}"
    subset = data.subset(torch.from_numpy(np.concatenate(chosen)))
    return dataclasses.replace(subset, name=f"{data.name}-lt{imbalance:g}{suffix}")


def holdout(data: LabelledImages, per_class: int, *, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
    """(rest, held): `per_class` images of every class are held out, at random; both keep the order of `data`.

    Raises UsageError when a class would be left without an image.
    """
    smallest = int(data.counts().min())
    if not 0 < per_class < smallest:
        raise UsageError(
            f"{data.name}: cannot hold out {per_class} images a class; expected 1 to {smallest - 1}, "
            f"because the smallest class has {smallest}"
        )
    labels, order = data.labels.cpu().numpy(), np.random.RandomState(seed)
    held = np.zeros(len(labels), dtype=bool)
    for k in range(data.num_classes):
        held[order.permutation(np.flatnonzero(labels == k))[:per_class]] = True
    mask = torch.from_numpy(held)
    return data.subset((~mask).nonzero().flatten()), data.subset(mask.nonzero().flatten())


def first_classes(data: LabelledImages, num_classes: int) -> LabelledImages:
    """The images of classes 0..num_classes-1. Raises UsageError when `data` has fewer classes, or for less than 2."""
    if not 2 <= num_classes <= data.num_classes:
        raise UsageError(f"{data.name} has {data.num_classes} classes; {num_classes} are asked for, expected 2 to all")
    if num_classes == data.num_classes:
        return data
    kept = data.subset((data.labels < num_classes).nonzero().flatten())
    return dataclasses.replace(kept, num_classes=num_classes, name=f"{data.name}-first{num_classes}")
