"""The images that layer methods add delta to: jigsaws and Gaussian noise that grow richer as a run goes on."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..proxies import GaussianPrior, JigsawPrior
from ..proxies.base import uniform
from ..victims import Victim
from .crafting import Crafting
from .inputs import unnormalised

ANGLES = (-10.0, -7.0, -5.0, -3.0, 3.0, 5.0, 7.0, 10.0)  # degrees
WIDTHS = (3, 5, 7, 9)  # of the blur, in pixels
RANGE_STD = 127.5 / 3.29  # levels: 99.9 % of the samples are pixels


def shown(victim: Victim, pixels: Tensor, normalise: bool) -> Tensor:
    """What to give the victim for image + delta (B,3,H,W): clipped to [0,1], or the raw input of the public code."""
    return pixels.clamp(0, 1) if normalise else unnormalised(victim, pixels)


class CurriculumPrior:
    """TRM-UAP's artificial images, or the user's own where the run has a source.

    `jigsaw`: 1 cut per axis, one more every 600 published iterations up to 8. `gaussian`: spread 10 levels, 10 more
    every 400 up to 127, then scaled, flipped, rotated and blurred at random. Without normalisation the Gaussian is
    shifted to mean 0, and the jigsaw is not, as in the public code.
    """

    def __init__(self, run: Crafting, prior: str, normalise: bool) -> None:
        size, device = run.victim.input_size[1:], run.victim.device
        self.jigsaw = JigsawPrior(size, device, frequency=(1, 8))
        self.gaussian = GaussianPrior(size, device, std=(10.0, 127.0))
        self.kind, self.source = prior, run.source
        self.shift = 0.0 if normalise else 0.5
        if prior not in ("jigsaw", "gaussian"):
            raise UsageError(f"prior={prior!r} is unknown; expected jigsaw or gaussian")
        run.sources = [run.source or (self.jigsaw if prior == "jigsaw" else self.gaussian)]

    def batch(self, n: int, iteration: float, generator: torch.Generator) -> Tensor:
        """(n,3,H,W) for the published `iteration`."""
        if self.source is not None:
            return self.source.batch(n, generator)
        if self.kind == "jigsaw":
            return self.jigsaw.batch(n, generator, frequency=min(8, 1 + int(iteration / 600)))
        noise = self.gaussian.batch(n, generator, std=min(127.0, 10.0 + 10 * int(iteration / 400)))
        return augmented(noise.flip(1), generator) - self.shift


class RangePrior:
    """GD-UAP's range prior: random crops of one large Gaussian image, scaled, flipped, rotated and blurred.

    The image is three times as wide and high as the victim's input, with mean 127.5 and the spread for which 99.9 % of
    its values are pixels.
    """

    data_class = "none"

    def __init__(self, run: Crafting) -> None:
        self.size, self.device = run.victim.input_size[1:], run.victim.device
        canvas = torch.randn(3, 3 * self.size[0], 3 * self.size[1], generator=run.rng("range-prior"))
        self.canvas = (0.5 + RANGE_STD / 255 * canvas).clamp(0, 1)

    def describe(self) -> dict[str, object]:
        return {"source": "range-prior", "size": list(self.size), "std_255": round(RANGE_STD, 2)}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) in [0,1]."""
        rows, columns = (
            torch.randint(0, 2 * side + 1, (n, 1), generator=generator) + torch.arange(side) for side in self.size
        )
        crops = self.canvas[:, rows.unsqueeze(2), columns.unsqueeze(1)].movedim(1, 0)
        return augmented(crops.to(self.device), generator)


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n,3,H,W), each scaled by 0.75 to 1.5, flipped, rotated by 3 to 10 degrees, and blurred over 3 to 9
    pixels, each with probability 1/2; all cropped as from 256 to 224.
    """
    n = len(images)
    zoom = torch.where(_coin(n, generator), uniform(0.75, 1.5, (n,), generator), 1.0) * 256 / 224
    flip = torch.where(_coin(n, generator), -1.0, 1.0)
    turn = torch.tensor(ANGLES)[torch.randint(0, len(ANGLES), (n,), generator=generator)] * math.pi / 180
    angle = torch.where(_coin(n, generator), turn, 0.0)
    cos, sin, zero = angle.cos() / zoom, angle.sin() / zoom, torch.zeros(n)
    h, w = images.shape[-2:]
    theta = torch.stack([flip * cos, -sin * h / w, zero, flip * sin * w / h, cos, zero], 1).view(n, 2, 3).to(images)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    width = torch.tensor(WIDTHS)[torch.randint(0, len(WIDTHS), (n,), generator=generator)]
    return blurred(images, torch.where(_coin(n, generator), width, 1))


def blurred(images: Tensor, width: Tensor) -> Tensor:
    """Images (n,C,H,W), image i under a Gaussian of `width[i]` pixels (odd, at most 9; 1 leaves it alone)."""
    n, c, h, w = images.shape
    sigma = 0.15 * width.view(-1, 1) + 0.35  # the usual choice for a kernel of that width
    at = torch.arange(-4, 5).view(1, -1)
    kernel = (-(at**2) / (2 * sigma**2)).exp() * (at.abs() <= width.view(-1, 1) // 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images).repeat_interleave(c, 0)
    padded = functional.pad(images, (4, 4, 4, 4), mode="reflect").view(1, n * c, h + 8, w + 8)
    padded = functional.conv2d(padded, kernel.view(n * c, 1, 9, 1), groups=n * c)
    return functional.conv2d(padded, kernel.view(n * c, 1, 1, 9), groups=n * c).view(n, c, h, w)


def _coin(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < 0.5
