"""The artificial images of the data-free literature: Gaussian noise and jigsaws.

GaussianPrior: the range prior of Mopuri et al., "Generalizable data-free objective" (2018), with the spreads of TRM-UAP
(2023). JigsawPrior: Zhang et al., "Data-free universal adversarial perturbation and black-box attack" (2021).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..runtime import uniform
from .base import Device, Size, as_size
from .procedural import random_cells

LEVEL = 1 / 255


class GaussianPrior:
    """Independent Gaussian pixels around mid-grey, clipped to [0,1].

    `std` in levels of 255 is the spread of the first channel, a number or a range to draw from per image; the other two
    channels are 10 and 20 levels wider. TRM-UAP lets it grow from 10 to 127.
    """

    data_class = "none"

    def __init__(
        self, size: Size = 224, device: Device = "cpu", *, std: float | tuple[float, float] = (10.0, 107.0)
    ) -> None:
        self.size = as_size(size)
        self.device = torch.device(device)
        self.std = as_range(std, "std", 0)

    def describe(self) -> dict[str, Any]:
        return {"source": "gaussian", "size": list(self.size), "std_255": list(self.std)}

    def batch(self, n: int, generator: torch.Generator, *, std: float | None = None) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1]; `std` overrides the source's own, for curricula."""
        low, high = self.std if std is None else as_range(std, "std", 0)
        spread = (
            uniform(low, high, (n, 1, 1, 1), generator) + torch.tensor([0.0, 10.0, 20.0]).view(1, 3, 1, 1)
        ) * LEVEL
        noise = torch.randn((n, 3, *self.size), generator=generator)
        return (0.5 + spread * noise).clamp_(0, 1).to(self.device)


class JigsawPrior:
    """Rectangles of uniform random colours between random cuts, with rounded corners.

    `frequency` is the number of cuts per axis, a number or a range (both ends included) to draw from per image; TRM-UAP
    lets it grow from 1 to 8. Its median over a disk of 81 pixels is done here as a 3x3 median at a third of the
    resolution (9x9 pixels; at full resolution below 96 pixels); `smooth=False` leaves it out.
    """

    data_class = "none"

    def __init__(
        self,
        size: Size = 224,
        device: Device = "cpu",
        *,
        frequency: int | tuple[int, int] = (1, 8),
        smooth: bool = True,
    ) -> None:
        self.size = as_size(size)
        self.device = torch.device(device)
        self.frequency = as_range(frequency, "frequency", 1)
        self.smooth = smooth

    def describe(self) -> dict[str, Any]:
        return {
            "source": "jigsaw",
            "size": list(self.size),
            "frequency": [int(end) for end in self.frequency],
            "smooth": self.smooth,
        }

    def batch(self, n: int, generator: torch.Generator, *, frequency: int | None = None) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1]; `frequency` overrides the source's own, for curricula."""
        low, high = self.frequency if frequency is None else as_range(frequency, "frequency", 1)
        cuts = torch.randint(int(low), int(high) + 1, (n, 1, 1), generator=generator)
        most = int(high)
        step = 3 if self.smooth and min(self.size) >= 96 else 1
        h, w = (-(-side // step) for side in self.size)
        cell = random_cells(n, cuts, most, h, generator).unsqueeze(2) * (most + 1)
        cell = (cell + random_cells(n, cuts, most, w, generator).unsqueeze(1)).view(n, 1, -1)
        colour = torch.rand((n, 3, (most + 1) ** 2), generator=generator).to(self.device)
        image = colour.gather(2, cell.expand(-1, 3, -1).to(self.device)).view(n, 3, h, w)
        image = median3(image) if self.smooth else image
        return functional.interpolate(image, scale_factor=step)[..., : self.size[0], : self.size[1]].contiguous()


def median3(images: Tensor) -> Tensor:
    """3x3 median of images (n,C,H,W), edges replicated."""
    n, c, h, w = images.shape
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate").view(n * c, 1, h + 2, w + 2)
    return functional.unfold(padded, 3).median(1).values.view(n, c, h, w)


def as_range(value: float | tuple[float, float], name: str, lowest: float) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, int | float) else value
    if not lowest <= low <= high:
        raise UsageError(f"{name}={value} must be a number or a range of {lowest} or more, in order")
    return low, high
