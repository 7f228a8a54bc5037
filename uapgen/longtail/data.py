"""Labelled images that live as bytes on the device that uses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
