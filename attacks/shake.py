"""Random small changes that a picture's class survives: the robustness asked of class impressions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..proxies.base import uniform


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
