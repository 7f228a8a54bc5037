"""Random crops and flips of whole batches, on the device that holds them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


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
