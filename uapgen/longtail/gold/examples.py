"""What the experiments train on: images or points with labels, and a synthetic set of points."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import UsageError
from ...runtime import rng, tensor_sha256
from ..data import LabelledImages
from ..sources import load_data

if TYPE_CHECKING:
    from .plan import GoldData

BLOBS, RADIUS, SPREAD = 6, 2.0, 0.5


@dataclass(frozen=True)
class Examples:
    """`x` (N,3,H,W) uint8 pixels or (N,D) float32 points, and `labels` (N,) int64, on one device.

    window: `batch` cuts a square of so many pixels out of each image, at random; None takes all of it.
    """

    x: Tensor
    labels: Tensor
    num_classes: int
    name: str
    window: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sha256(self) -> str:
        return tensor_sha256(self.x, self.labels)

    def to(self, device: torch.device) -> Examples:
        return dataclasses.replace(self, x=self.x.to(device), labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> Examples:
        indices = indices.to(self.labels.device)
        return dataclasses.replace(self, x=self.x[indices], labels=self.labels[indices])

    def centred(self) -> Examples:
        """The same with the middle window of each image, for testing."""
        if self.window is None:
            return self
        top, left = ((side - self.window) // 2 for side in self.x.shape[2:])
        cut = self.x[:, :, top : top + self.window, left : left + self.window].contiguous()
        return dataclasses.replace(self, x=cut, window=None)

    def batch(self, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """n examples drawn with replacement, as floats (pixels in [0,1]), and their labels."""
        pick = torch.randint(len(self), (n,), generator=draws, device=draws.device).to(self.labels.device)
        return self.floats(pick, draws), self.labels[pick]

    def floats(self, indices: Tensor, draws: torch.Generator) -> Tensor:
        """The examples at `indices` as `batch` gives them, without their labels."""
        x = self.x[indices.to(self.x.device)]
        return as_floats(x if self.window is None else _windows(x, self.window, draws))


def as_floats(x: Tensor) -> Tensor:
    """Pixels in [0,1]; points as they are."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _windows(x: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """A square (size,size) of each of x (B,C,H,W), its corner uniform."""
    n, channels, height, width = x.shape
    image = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=x.device).view(1, channels, 1, 1)
    reach = torch.arange(size, device=x.device)
    top, left = (torch.randint(side - size + 1, (n, 1), generator=draws).to(x.device) for side in (height, width))
    return x[image, channel, (top + reach).view(n, 1, size, 1), (left + reach).view(n, 1, 1, size)]


def of_images(data: LabelledImages, *, window: int | None = None) -> Examples:
    """Raises UsageError for a window that is larger than the images."""
    if window is not None and window > min(data.size):
        raise UsageError(f"{data.name} has images of {data.size} pixels; a window of {window} does not fit")
    return Examples(data.images, data.labels, data.num_classes, data.name, window)


def blobs(n: int, *, seed: int = 0) -> Examples:
    """n points (n,2) around six centres on a circle, standard deviation 0.5; neighbours are of different classes.

    The paper's synthetic set: six Gaussians, two classes of three each. Its centres are not stated; ours lie at radius
    2, so that neighbouring centres are four deviations apart. Raises UsageError for fewer than six points.
    """
    if n < BLOBS:
        raise UsageError(f"{n} points for {BLOBS} blobs; expected at least one of each")
    draws = rng(seed, "gold-blobs")
    which = torch.arange(n) % BLOBS
    angle = which * (2 * math.pi / BLOBS)
    centres = RADIUS * torch.stack([angle.cos(), angle.sin()], 1)
    return Examples(centres + SPREAD * torch.randn(n, 2, generator=draws), which % 2, 2, "blobs")


def split_evenly(data: Examples, n: int, *, seed: int, key: str) -> tuple[Tensor, Tensor]:
    """(chosen, rest): indices of n examples, as many of each class as of any other, at random, and of the others.

    Where n is no multiple of the classes, the first classes give one more. Raises UsageError when a class has too few.
    """
    labels = data.labels.cpu()
    order = torch.randperm(len(labels), generator=rng(seed, key))
    chosen = []
    for k in range(data.num_classes):
        share = n // data.num_classes + (k < n % data.num_classes)
        mine = order[labels[order] == k]
        if len(mine) < share:
            raise UsageError(f"{data.name}: class {k} has {len(mine)} examples, {share} are asked for; ask for fewer")
        chosen.append(mine[:share])
    picked = torch.cat(chosen)
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[picked] = False
    return picked, order[kept[order]]


def load_examples(data: GoldData, root: str | Path | None = None) -> tuple[Examples, Examples]:
    """Training and test part. Raises what `load_data` raises."""
    if data.spec == "blobs":
        return blobs(data.points, seed=0), blobs(data.points, seed=1)
    held = load_data(data.spec, root=root, train=not data.test_only, size=data.resize)
    test = (
        load_data(data.test, root=root, size=32) if data.test else load_data(data.spec, root=root, train=False, size=32)
    )
    return of_images(held, window=None if data.resize == 32 else 32), of_images(test)
