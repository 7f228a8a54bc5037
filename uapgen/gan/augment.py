"""DiffAugment: what the discriminator sees, real and fake, goes through random changes that let gradients pass.

Zhao et al., "Differentiable augmentation for data-efficient GAN training", 2020. Strengths are the paper's, which
counts pixels in [-1,1]; empty pixels are grey, the paper's zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]
GREY = 0.5


def diff_augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Colour, translation and cutout, each image (B,3,H,W) with draws of its own. Output may leave [0,1]."""
    return cutout(translate(colour(x, generator), generator), generator)


def colour(x: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness +-0.25, then saturation times U(0,2), then contrast times U(0.5,1.5), on pixels (B,3,H,W)."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, generator=generator).to(x.device)
    x = x + (brightness - 0.5) / 2
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)


def translate(x: Tensor, generator: torch.Generator, *, ratio: float = 0.125) -> Tensor:
    """Moves each image by up to `ratio` of its sides, whole pixels; what comes in is grey."""
    reach = [int(side * ratio + 0.5) for side in x.shape[-2:]]
    for dim, side, most in zip((2, 3), x.shape[-2:], reach, strict=True):
        shift = torch.randint(-most, most + 1, (len(x), 1), generator=generator)
        source = (torch.arange(side) + shift).to(x.device)  # (B, side): where each line comes from
        shape = [len(x), 1, 1, 1]
        shape[dim] = side
        index = source.clamp(0, side - 1).view(shape).expand_as(x)
        inside = ((source >= 0) & (source < side)).view(shape)
        x = torch.where(inside, x.gather(dim, index), GREY)
    return x


def cutout(x: Tensor, generator: torch.Generator, *, ratio: float = 0.5) -> Tensor:
    """Greys a box of `ratio` of the sides, centred anywhere in the image and clipped at its border."""
    covered = torch.ones(len(x), 1, *x.shape[-2:], dtype=torch.bool, device=x.device)
    for dim, side in zip((2, 3), x.shape[-2:], strict=True):
        extent = int(side * ratio + 0.5)
        centre = torch.randint(0, side + (1 - extent % 2), (len(x), 1), generator=generator)
        first = centre - extent // 2
        line = torch.arange(side)
        shape = [len(x), 1, 1, 1]
        shape[dim] = side
        covered = covered & ((line >= first) & (line < first + extent)).to(x.device).view(shape)
    return torch.where(covered, GREY, x)
