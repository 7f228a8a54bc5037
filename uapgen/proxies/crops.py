"""Random resized crops of tensors, and PSP-UAP's trick of crafting on crops of the perturbation itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..runtime import uniform
from .base import ProxySource


def random_resized_crops(
    images: Tensor,
    n: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """n crops (n,C,H,W) of `images` (B,C,H,W), each resized to the whole frame by bilinear sampling.

    Crop i is of image i mod B; `scale` is the range of its share of the area, `ratio` the log-uniform range of its
    aspect. Crops stay inside the image: a side that would not fit is cut to the frame. Differentiable in `images`.
    """
    if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
        raise UsageError(f"crops need 0 < scale <= 1 and ratio > 0, in order; got scale={scale}, ratio={ratio}")
    h, w = images.shape[-2:]
    area = uniform(*scale, (n,), generator)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), (n,), generator).exp()
    half = torch.stack([(area * aspect * h / w).sqrt(), (area / aspect * w / h).sqrt()], 1).clamp_max(1)
    centre = (2 * torch.rand((n, 2), generator=generator) - 1) * (1 - half)
    theta = torch.cat([torch.diag_embed(half), centre.unsqueeze(-1)], -1).to(images.device, images.dtype)
    pick = torch.arange(n, device=images.device) % len(images)
    grid = functional.affine_grid(theta, [n, images.shape[1], h, w], align_corners=False)
    return functional.grid_sample(images[pick], grid, padding_mode="border", align_corners=False)


class DeltaCrops:
    """Detached random crops of prior image + current delta: "pseudo-semantic" images that look like the perturbation.

    The samples of PSP-UAP (CVPR 2025). `current` gives the delta (3,H,W) or (1,3,H,W) in pixel units at each call;
    `crops` is how many crops one prior image serves (10 in PSP-UAP). The paper's code does not clip; `clip=True` keeps
    the contract that images are in [0,1].
    """

    def __init__(
        self,
        prior: ProxySource,
        current: Callable[[], Tensor],
        *,
        crops: int = 10,
        scale: tuple[float, float] = (0.08, 1.0),
        clip: bool = True,
    ) -> None:
        self.prior, self.current = prior, current
        self.crops, self.scale, self.clip = crops, scale, clip

    @property
    def data_class(self) -> str:
        return self.prior.data_class

    def describe(self) -> dict[str, Any]:
        own = {"crops": self.crops, "scale": list(self.scale), "clip": self.clip}
        return {"source": "delta-crops", **own, "prior": self.prior.describe()}

    @torch.no_grad()
    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W); in [0,1] unless `clip=False`, when they reach eps beyond."""
        base = self.prior.batch(-(-n // self.crops), generator)
        delta = self.current().detach().to(base.device, base.dtype).view(1, *base.shape[1:])
        images = random_resized_crops(base + delta, n, generator, scale=self.scale)
        return images.clamp_(0, 1) if self.clip else images
