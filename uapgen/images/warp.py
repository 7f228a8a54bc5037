"""Images moved, turned, cut, recoloured: the random changes that losses, class impressions and training draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn import functional as F

from ..runtime import uniform
from ..victims import Victim

Transform = Callable[[Tensor], Tensor]


def random_transform(victim: Victim, n: int, intensity: float, generator: torch.Generator) -> Transform:
    """One of PSP-UAP's three transforms of victim inputs (n,3,H,W), with a draw of its own for each image."""
    kind = int(torch.randint(0, 3, (1,), generator=generator))
    if kind == 0:
        angle = torch.nn.init.trunc_normal_(torch.empty(n), 0.0, 6.0, -6.0, 6.0, generator=generator)
        return lambda x: rotated(x, angle)
    if kind == 1:
        factor = uniform(0.8, intensity, (n, 1, 1, 1), generator).to(victim.device)
        return lambda x: brightened(victim, x, factor)
    return random_shuffle(victim.input_size, generator)


def random_shuffle(size: tuple[int, int, int], generator: torch.Generator) -> Transform:
    """`shuffled` with one draw of cuts and swaps, for images (n,*size)."""
    _, h, w = size
    cuts = [int(torch.randint(1, side, (1,), generator=generator)) for side in (h, w, w)]
    swaps = torch.randint(0, 2, (3,), generator=generator).tolist()
    return lambda x: shuffled(x, cuts, swaps)


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """x (n,C,H,W), image i turned by degrees[i]; corners that the turn leaves empty keep the unturned pixels."""
    angle = degrees * math.pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    h, w = x.shape[-2:]
    theta = torch.stack([cos, -sin * h / w, zero, sin * w / h, cos, zero], 1).view(-1, 2, 3).to(x)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    inside = (grid.abs().amax(-1) <= 1).unsqueeze(1)
    return torch.where(inside, functional.grid_sample(x, grid, padding_mode="border", align_corners=False), x)


def brightened(victim: Victim, x: Tensor, factor: Tensor) -> Tensor:
    """x (n,3,H,W) with what the network sees of it multiplied by factor (n,1,1,1)."""
    return victim.mean + factor * (x - victim.mean)


def shuffled(x: Tensor, cuts: Sequence[int], swaps: Sequence[int]) -> Tensor:
    """x (n,C,H,W) cut into two bands of rows at cuts[0], and these into two blocks each at cuts[1] and cuts[2].

    swaps[0] exchanges the bands, swaps[1] and swaps[2] the blocks within the upper and the lower one.
    """
    upper, lower = x[:, :, : cuts[0]], x[:, :, cuts[0] :]
    bands = [band.roll(-cut * swap, 3) for band, cut, swap in zip((upper, lower), cuts[1:], swaps[1:], strict=True)]
    return torch.cat(bands[::-1] if swaps[0] else bands, 2)


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Shake:
    """Rotates, scales, shifts (edges mirrored), recolours images and gives them noise, each image its own way.

    The ranges are those of AAA's public code (Mopuri et al., ECCV 2018), each way from none, in pixel units.
    """

    rotation: float = 5.0  # degrees
    scale: float = 0.05
    shift: float = 16 / 224  # of the side: the crop of a padded image
    jitter: float = 16 / 255  # per image and channel
    noise: float = 10 / 255  # per pixel

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(B,C,H,W) of images (B,C,H,W), not clipped; differentiable."""
        b, (h, w) = len(x), x.shape[-2:]
        angle = uniform(-self.rotation, self.rotation, (b,), generator) * math.pi / 180
        zoom = 1 + uniform(-self.scale, self.scale, (b,), generator)
        shift = 2 * uniform(-self.shift, self.shift, (b, 2, 1), generator)
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        turn = torch.stack([torch.stack([cos, -sin * h / w], 1), torch.stack([sin * w / h, cos], 1)], 1)
        grid = F.affine_grid(torch.cat([turn, shift], 2).to(x), list(x.shape), align_corners=False)
        moved = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        colour = uniform(-self.jitter, self.jitter, (b, x.shape[1], 1, 1), generator)
        return moved + (colour + uniform(-self.noise, self.noise, tuple(x.shape), generator)).to(x)


class Crops(NamedTuple):
    """For each of B images the corner of its crop, `top` and `left` (B,1) in 0..2 pad, and `mirrored` (B,1) bool."""

    top: Tensor
    left: Tensor
    mirrored: Tensor

    def part(self, start: int, stop: int) -> Crops:
        return Crops(*(each[start:stop] for each in self))


def draw_crops(n: int, generator: torch.Generator, *, pad: int, flip: bool, device: torch.device | str) -> Crops:
    """Uniform corners; half of the images mirrored if `flip`. Drawn where the generator lives, for a whole epoch."""

    def draw(high: int) -> Tensor:
        return torch.randint(0, high, (n, 1), generator=generator, device=generator.device).to(device)

    return Crops(draw(2 * pad + 1), draw(2 * pad + 1), draw(2).bool() & flip)


def crop(images: Tensor, crops: Crops, *, pad: int) -> Tensor:
    """(B,C,H,W) padded with `pad` black pixels on each side, then (H,W) of each image from its own corner."""
    n, channels, height, width = images.shape
    rows = crops.top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = crops.left + torch.where(crops.mirrored, width - 1 - columns, columns)
    image = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
    padded = F.pad(images, (pad, pad, pad, pad))
    return padded[image, channel, rows.view(n, 1, height, 1), columns.view(n, 1, 1, width)]
