"""Procedural images besides dead leaves: coloured blocks, 1/f noise, and the mix that crafting uses by default."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..runtime import uniform
from .base import CHROMA, Device, Mixture, ProxySource, Size, as_size, colours, power_law_fields
from .dead_leaves import DeadLeaves

SCALES = (2, 3, 5, 9, 16, 28)


class ColouredBlocks:
    """Rectangles at several scales: irregular grids from coarse to fine, each repainting some of its cells."""

    data_class = "none"

    def __init__(self, size: Size = 224, device: Device = "cpu") -> None:
        self.size = as_size(size)
        self.device = torch.device(device)

    def describe(self) -> dict[str, Any]:
        return {"source": "blocks", "size": list(self.size), "scales": list(SCALES)}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1], constant inside each rectangle."""
        h, w = self.size
        image = torch.zeros((n, 3, h, w), device=self.device)
        for level, cells in enumerate(SCALES):
            rows, columns = (random_cells(n, cells - 1, cells - 1, side, generator) for side in self.size)
            colour = colours((n, cells * cells), generator)
            share = uniform(0.05, 0.5, (n, 1), generator) if level else torch.ones(n, 1)
            repaint = (torch.rand((n, cells * cells), generator=generator) < share).float().unsqueeze(-1)
            paint = torch.cat([colour * repaint, 1 - repaint], -1).to(self.device)
            cell = (rows.unsqueeze(2) * cells + columns.unsqueeze(1)).to(self.device)
            looked_up = paint.gather(1, cell.view(n, -1, 1).expand(-1, -1, 4)).movedim(-1, 1).view(n, 4, h, w)
            image = image * looked_up[:, 3:] + looked_up[:, :3]
        return image


class PinkNoise:
    """Gaussian images with amplitude spectra 1/f^alpha, alpha from `exponent` per image, and correlated colours."""

    data_class = "none"

    def __init__(self, size: Size = 224, device: Device = "cpu", *, exponent: tuple[float, float] = (0.6, 1.8)) -> None:
        self.size = as_size(size)
        self.device = torch.device(device)
        self.exponent = exponent

    def describe(self) -> dict[str, Any]:
        return {"source": "pink-noise", "size": list(self.size), "exponent": list(self.exponent)}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1]; values outside are clipped."""
        fields = power_law_fields(self.size, uniform(*self.exponent, (n,), generator), generator, channels=3)
        contrast = uniform(0.1, 0.25, (n, 1, 1), generator)
        chroma = uniform(0.0, 0.6, (n, 1, 1), generator) * torch.tensor([[0.6], [0.3]]) * CHROMA
        axes = torch.cat([torch.full((n, 1, 3), 1.0), chroma], 1) * contrast
        ground = colours((n,), generator) * 0.6 + 0.2
        image = (axes.transpose(1, 2) @ fields.flatten(2)).view(fields.shape) + ground.view(n, 3, 1, 1)
        return image.clamp_(0, 1).to(self.device)


class Procedural(Mixture):
    """Dead leaves, 1/f noise and blocks: the default images that were never photographed."""

    def __init__(self, size: Size = 224, device: Device = "cpu") -> None:
        parts: list[tuple[ProxySource, float]] = [
            (DeadLeaves(size, device), 0.7),
            (PinkNoise(size, device), 0.15),
            (ColouredBlocks(size, device), 0.15),
        ]
        super().__init__(parts)


def random_cells(n: int, cuts: Tensor | int, most: int, length: int, generator: torch.Generator) -> Tensor:
    """For each of `length` pixels the number (n,length) of its cell, counted from 0 across random cuts.

    `cuts` is how many of the `most` drawn cuts are used: a number, or (n,1,1) per image.
    """
    places = torch.randint(1, length, (n, 1, most), generator=generator)
    used = torch.arange(most) < cuts
    return ((torch.arange(length).view(1, -1, 1) >= places) & used).sum(-1)
