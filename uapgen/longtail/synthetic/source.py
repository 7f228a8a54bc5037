"""Generated training data: one or several generators, transformed, filtered; fixed, or fresh in every epoch.

Slim, "Boosting generative networks for incremental learning", 2020, sections 3 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...errors import UsageError
from ...runtime import rng
from ..augment import crop, draw_crops
from ..data import LabelledImages, Stream
from .filtering import ClassifierFilter
from .sampling import Sample

HEAD = 1024  # images of a stream that its mean and deviation are measured on


@dataclass(frozen=True)
class Transform:
    """Random crops out of `pad` black pixels around the image; half of the images mirrored if `flip`."""

    pad: int = 4
    flip: bool = False

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        crops = draw_crops(len(images), draws, pad=self.pad, flip=self.flip, device=images.device)
        return crop(images, crops, pad=self.pad)


@dataclass(frozen=True)
class Source:
    """Batches of labelled images: sample, round to 8 bits, transform, then filter, so that the filter sees what the
    classifier will see. All images are 8-bit, as files are; the published code rounded only where it transformed.

    samples: one function for each generator. shares: the chance of each to make a whole batch; equal by default.
    Raises UsageError for shares that are no probabilities of these generators, and for a filter of other classes.
    """

    samples: tuple[Sample, ...]
    num_classes: int
    shares: tuple[float, ...] | None = None
    transform: Transform | None = None
    keep: ClassifierFilter | None = None

    def __post_init__(self) -> None:
        if not self.samples:
            raise UsageError("a source of generated images needs at least one generator")
        if self.shares is not None:
            check_shares(self.shares, len(self.samples))
        if self.keep and self.keep.classifier.num_classes != self.num_classes:
            raise UsageError(
                f"the filter's classifier has {self.keep.classifier.num_classes} classes, the images "
                f"{self.num_classes}; give one that was trained on these classes"
            )

    def pick(self, draws: torch.Generator) -> Sample:
        """The generator of one batch, drawn by `shares`."""
        shares = self.shares or (1.0,) * len(self.samples)
        weights = torch.tensor(shares, dtype=torch.float64, device=draws.device)
        return self.samples[int(torch.multinomial(weights, 1, generator=draws))]

    def batch(self, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """(n,3,H,W) uint8 and labels (n,), all from one generator. Raises UapgenError where the filter starves."""
        fresh = partial(self._fresh, self.pick(draws))
        return self.keep.fill(fresh, n, draws) if self.keep else fresh(n, draws)

    def _fresh(self, sample: Sample, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        images, labels = sample(n, draws)
        levels = images.clamp(0, 1).mul(255).round().byte()
        return (self.transform(levels, draws) if self.transform else levels), labels

    def batches(self, images: int, batch: int, draws: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """`images` in all, `batch` at a time, the last one shorter."""
        for start in range(0, images, batch):
            yield self.batch(min(batch, images - start), draws)

    def dataset(self, images: int, *, batch: int, seed: int, name: str) -> LabelledImages:
        """A fixed set: made once, and with it the crops and flips, which no epoch changes (as published)."""
        if images < 1 or batch < 1:
            raise UsageError(f"{images} generated images in batches of {batch}; expected at least 1 of each")
        parts = list(self.batches(images, batch, rng(seed, "synthetic-fixed")))
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        return LabelledImages(x, y, self.num_classes, name)

    def stream(self, images: int, *, batch: int, seed: int, name: str) -> Stream:
        """`images` fresh ones in every epoch, decided by the seed and the epoch's number."""
        head = self.dataset(max(HEAD, batch), batch=batch, seed=seed, name=f"{name}, fresh in every epoch")
        return Stream(head, images, lambda epoch: self.batches(images, batch, rng(seed, "synthetic-epoch", epoch)))


def check_shares(shares: tuple[float, ...], n: int) -> None:
    """Raises UsageError unless these are n probabilities."""
    if len(shares) != n or not all(share >= 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(
            f"generator shares {shares} for {n} generators (sum {sum(shares):g}); expected {n} numbers of at least 0 "
            "that sum to 1"
        )
