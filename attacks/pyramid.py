"""Laplacian pyramids: gradients with the same strength at every scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def laplacian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """At most `levels` bands of x (B,C,H,W), finest first, each half as wide as the one before; the last is what is
    left. Levels that would be smaller than 2 pixels are left out.
    """
    bands: list[Tensor] = []
    while len(bands) < levels - 1 and min(x.shape[-2:]) >= 4:
        coarse = _smooth(x)[..., ::2, ::2]
        bands.append(x - _enlarged(coarse, x))
        x = coarse
    return [*bands, x]


def collapsed(bands: Sequence[Tensor]) -> Tensor:
    """The image of which `bands` are the Laplacian pyramid."""
    x = bands[-1]
    for band in reversed(bands[:-1]):
        x = _enlarged(x, band) + band
    return x


def laplacian_normalised(gradient: Tensor, levels: int) -> Tensor:
    """gradient (1,C,H,W) with every band of its pyramid scaled to a root mean square of 1."""
    return collapsed([b / b.square().mean().sqrt().clamp_min(1e-30) for b in laplacian_pyramid(gradient, levels)])


def _smooth(x: Tensor) -> Tensor:
    row = torch.tensor(BINOMIAL, device=x.device, dtype=x.dtype) / sum(BINOMIAL)
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 5, 5)
    return functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def _enlarged(coarse: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)
