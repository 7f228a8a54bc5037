"""Labelled images that live as bytes on the device that uses them, and long-tailed subsets of balanced data.

The rule and the random order are those that the literature has used since 2019: Cao, Wei, Gaidon, Arechiga, Ma,
"Learning imbalanced datasets with label-distribution-aware margin loss", 2019.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UapgenError, UsageError
from ..runtime import tensor_sha256


@dataclass(frozen=True)
class LabelledImages:
    """`images` (N,3,H,W) uint8 and `labels` (N,) int64 in [0, num_classes), on one device.

    `flips`: whether a mirrored image is still of its class (a mirrored 3 is not a digit).
    Raises UapgenError when shapes, types or labels do not fit each other.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    name: str
    flips: bool = True

    def __post_init__(self) -> None:
        shape, kind = tuple(self.images.shape), self.images.dtype
        if kind != torch.uint8 or len(shape) != 4 or shape[1] != 3:
            raise UapgenError(f"{self.name}: images are {kind} {shape}; expected torch.uint8 (N,3,H,W)")
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != shape[:1]:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise UapgenError(f"{self.name}: labels are {found}; expected torch.int64 ({shape[0]},), one an image")
        if not shape[0]:
            raise UapgenError(f"{self.name} holds no image; expected at least one")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.num_classes:
            span = f"{low}..{high}" if low < high else f"{low}"
            raise UapgenError(f"{self.name}: labels are {span}; {self.num_classes} classes allow 0..num_classes-1")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def sha256(self) -> str:
        """Hash of pixels and labels, in order."""
        return tensor_sha256(self.images, self.labels)

    def counts(self) -> Tensor:
        """Images of each class, (K,) int64, on the CPU."""
        return torch.bincount(self.labels, minlength=self.num_classes).cpu()

    def to(self, device: torch.device | str) -> LabelledImages:
        return dataclasses.replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> LabelledImages:
        """The images at `indices` (M,) int64, in that order."""
        indices = indices.to(self.labels.device)
        return dataclasses.replace(self, images=self.images[indices], labels=self.labels[indices])

    def batch(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n images drawn with replacement: (n,3,H,W) float32 in [0,1] and labels (n,).

        Drawn where the generator lives, so that a CPU one gives every device the same images.
        """
        pick = torch.randint(0, len(self), (n,), generator=generator, device=generator.device)
        pick = pick.to(self.labels.device)
        return self.images[pick].float().div_(255), self.labels[pick]

    def require_every_class(self) -> None:
        """Raises UapgenError, naming the classes, when some class has no image."""
        empty = (self.counts() == 0).nonzero().flatten().tolist()
        if empty:
            named = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
            raise UapgenError(
                f"{self.name}: {len(empty)} of {self.num_classes} classes have no image ({named}); "
                "add images, or number the classes that there are from 0"
            )


@dataclass(frozen=True)
class Stream:
    """Labelled images that are new in every epoch, for `train_classifier`.

    head: some of them, which stand for all: size, classes, mean and deviation are taken from these.
    images: how many an epoch has. batches: `batches(epoch)` -> (B,3,H,W) uint8 and labels (B,), decided by the epoch's
    number alone, so that a resumed run sees what the uninterrupted one would have seen.
    """

    head: LabelledImages
    images: int
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]]


def resized(data: LabelledImages, size: int, *, chunk: int = 4096) -> LabelledImages:
    """The same images at `size` x `size` pixels, (N,3,size,size): bilinear, antialiased where they shrink, rounded.

    Raises UsageError for a size below 1.
    """
    if size < 1:
        raise UsageError(f"image size {size} is not positive; expected e.g. 32 or 64")
    if data.size == (size, size):
        return data
    parts = [
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
        for part in data.images.split(chunk)
    ]
    return dataclasses.replace(data, images=torch.cat(parts))


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
