"""Textured dead leaves: images made of overlapping shapes, the simplest model with the edges of natural images.

Lee, Mumford and Huang, "Occlusion models for natural images" (2001): sizes follow a power law, leaves hide each other.
Baradad et al., "Learning to see by looking at noise" (2021): textured leaves are the better ones to learn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..runtime import uniform
from .base import Device, Size, as_size, colours, power_law_fields

# Painted in this order: (leaves, smallest and largest radius as shares of the shorter side). The small leaves
# are the most numerous (the power law); large ones that come late leave parts of the picture calm.
PASSES = ((10, 0.25, 0.8), (26, 0.08, 0.25), (50, 0.03, 0.08), (4, 0.15, 0.5), (12, 0.06, 0.15), (60, 0.012, 0.04))
TEXTURES, TILE = 16, 256
PALETTE = 6


@dataclass(frozen=True)
class _Leaves:
    """Shapes (n,L) in raster pixels: inside where max(u^2,v^2) + roundness * min(u^2,v^2) < 1 in the leaf's frame."""

    x: Tensor
    y: Tensor
    radius: Tensor
    aspect: Tensor
    angle: Tensor
    roundness: Tensor
    taper: Tensor


class DeadLeaves:
    """Overlapping textured ellipses, boxes and wedges on a ground, shaded, in the colours of one palette per image.

    Sides above 128 pixels are rasterised at half resolution and upsampled; textures keep the full resolution.
    """

    data_class = "none"

    def __init__(self, size: Size = 224, device: Device = "cpu") -> None:
        self.size = as_size(size)
        self.device = torch.device(device)
        self._factor = 2 if min(self.size) > 128 else 1
        h, w = self.size
        self._raster = (-(-h // self._factor), -(-w // self._factor))

    def describe(self) -> dict[str, Any]:
        return {"source": "dead-leaves", "size": list(self.size), "leaves": sum(count for count, _, _ in PASSES)}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1]."""
        leaves = _draw_leaves(n, self._raster, generator)
        table = _draw_paint(leaves, generator).to(self.device)
        tiles = _draw_textures(generator).to(self.device)
        light = uniform(0.7, 1.25, (n, 1, 3, 3), generator).to(self.device)
        softness = torch.rand((n, 1, 1, 1), generator=generator).square().to(self.device)
        index = _paint(_to(leaves, self.device), self._raster)
        h, w = self.size
        image = self._colour(index, table, tiles, softness)[..., :h, :w]
        return (image * functional.interpolate(light, self.size, mode="bicubic", align_corners=True)).clamp_(0, 1)

    def _colour(self, index: Tensor, table: Tensor, tiles: Tensor, softness: Tensor) -> Tensor:
        """Looks up each pixel's leaf in `table` (n,L,12): colour 3, shading plane 3, tint 3, tile and shift 3."""
        n, h, w = index.shape
        first = torch.arange(n, device=self.device).view(-1, 1, 1) * table.shape[1]
        paint = functional.embedding(index + first, table.flatten(0, 1)).movedim(-1, 1)
        x = torch.arange(w, device=self.device)
        y = torch.arange(h, device=self.device).view(h, 1)
        shade = (paint[:, 3] * x + paint[:, 4] * y + paint[:, 5]).clamp_(-0.45, 0.45)
        flat = paint[:, :3] * (1 + shade.unsqueeze(1))
        blurred = functional.avg_pool2d(functional.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, 1)
        flat = flat.lerp(blurred, softness)
        # A raster pixel looks up its factor x factor texture values at once; pixel_shuffle lays them out.
        texture = _look_up(tiles, paint[:, 9:].long(), self._factor)
        detail = paint[:, 6:9].unsqueeze(2) * ((1 - softness) * texture).unsqueeze(1)
        if self._factor > 1:
            flat = functional.interpolate(flat, scale_factor=self._factor, mode="bicubic")
        return functional.pixel_shuffle(detail.flatten(1, 2), self._factor).add_(flat)


def _draw_leaves(n: int, raster: tuple[int, int], generator: torch.Generator) -> _Leaves:
    h, w = raster
    parts: list[list[Tensor]] = []
    for count, smallest, largest in PASSES:
        shape = (n, count)
        radius = min(h, w) * smallest * (largest / smallest) ** torch.rand(shape, generator=generator)
        # Clusters: around one random place per image and pass, wide or narrow; off-canvas leaves thin the pass out.
        spread = uniform(0.2, 1.3, (n, 1, 1), generator)
        place = uniform(0, 1, (n, 1, 2), generator) * (1 - spread).clamp_min(0) + (1 - spread).clamp_max(0) / 2
        xy = place + spread * torch.rand((*shape, 2), generator=generator)
        absent = torch.rand(shape, generator=generator) > uniform(0.15, 1.0, (n, 1), generator)
        x = torch.where(absent, torch.tensor(-9.0 * w), xy[..., 0] * w)
        base_angle = uniform(0, math.pi, (n, 1), generator)
        angle = base_angle + math.pi * torch.rand(shape, generator=generator) * torch.rand((n, 1), generator=generator)
        aspect = uniform(-1.6, 0, shape, generator).exp()
        roundness = (2 * torch.rand(shape, generator=generator)).clamp_max(1)
        taper = uniform(-0.8, 1.2, shape, generator).clamp_min(0)
        parts.append([x, xy[..., 1] * h, radius, aspect, angle, roundness, taper])
    return _Leaves(*(torch.cat(columns, 1) for columns in zip(*parts, strict=True)))


def _draw_paint(leaves: _Leaves, generator: torch.Generator) -> Tensor:
    """The colour table (n,1+L,12); row 0 is the ground."""
    n, count = leaves.x.shape
    count += 1
    palette = colours((n, PALETTE), generator)
    pick = torch.randint(0, PALETTE, (n, count, 1), generator=generator).expand(-1, -1, 3)
    jitter = (
        torch.randn((n, count, 3), generator=generator) * 0.05 + torch.randn((n, count, 1), generator=generator) * 0.1
    )
    colour = (palette.gather(1, pick) + jitter).clamp(0.01, 0.99)
    other = palette.gather(1, pick.roll(1, 1))
    strength = uniform(-0.12, 0.5, (n, count, 1), generator).clamp_min(0)
    tint = strength * (0.6 * (other - colour) + 0.35 * colour.mean(-1, keepdim=True))
    radius = functional.pad(leaves.radius, (1, 0), value=float(leaves.radius.max()))
    slope = torch.randn((n, count, 2), generator=generator) * 0.25 / radius.unsqueeze(-1)
    x, y = functional.pad(leaves.x, (1, 0)), functional.pad(leaves.y, (1, 0))
    plane = torch.stack([slope[..., 0], slope[..., 1], -(slope[..., 0] * x + slope[..., 1] * y)], -1)
    tile = torch.randint(0, TEXTURES, (n, count, 1), generator=generator)
    shift = torch.randint(0, TILE, (n, count, 2), generator=generator)
    return torch.cat([colour, plane, tint, tile.float(), shift.float()], -1)


def _draw_textures(generator: torch.Generator) -> Tensor:
    """Periodic tiles (TEXTURES,TILE,TILE) of about unit variance: noise, streaks, stripes and spots."""
    kind = torch.arange(TEXTURES).view(-1, 1, 1) % 4
    exponent = uniform(0.6, 1.6, (TEXTURES,), generator) + 0.5 * (kind.flatten() > 1)
    angle = uniform(0, math.pi, (TEXTURES,), generator)
    stretch = uniform(-1, 2.2, (TEXTURES,), generator).clamp_min(0).exp()
    fields = power_law_fields((TILE, TILE), exponent, generator, angle=angle, stretch=stretch)[:, 0]
    bands = (uniform(2, 9, (TEXTURES, 1, 1), generator) * fields).sin() * 1.4
    spots = torch.tanh(6 * fields)
    return torch.where(kind == 2, bands, torch.where(kind == 3, spots, fields))


def _look_up(tiles: Tensor, where: Tensor, factor: int) -> Tensor:
    """Texture values (n,factor^2,h,w) for `where` (n,3,h,w) int64: tile, row shift, column shift."""
    h, w = where.shape[-2:]
    side = TILE // factor
    rows = (where[:, 1] + torch.arange(h, device=tiles.device).view(h, 1)) % side
    columns = (where[:, 2] + torch.arange(w, device=tiles.device)) % side
    values = functional.pixel_unshuffle(tiles.unsqueeze(1), factor).movedim(1, -1).reshape(-1, factor * factor)
    return functional.embedding((where[:, 0] * side + rows) * side + columns, values).movedim(-1, 1)


def _paint(leaves: _Leaves, raster: tuple[int, int]) -> Tensor:
    """Painter's algorithm: (n,h,w) int64, 0 for the ground, k+1 for leaf k. A step paints a leaf in every image."""
    n, (h, w) = len(leaves.x), raster
    index = torch.zeros((n, h, w), dtype=torch.int64, device=leaves.x.device)
    leaf = 0
    for count, _, largest in PASSES:
        reach = math.ceil(2 * math.sqrt(2) * largest * min(h, w)) + 1
        for _ in range(count):
            _paint_leaf(index, leaves, leaf, (min(reach, h), min(reach, w)))
            leaf += 1
    return index


def _paint_leaf(index: Tensor, leaves: _Leaves, leaf: int, window: tuple[int, int]) -> None:
    n, h, w = index.shape
    cx, cy, angle = leaves.x[:, leaf], leaves.y[:, leaf], leaves.angle[:, leaf]
    top = (cy - window[0] / 2).long().clamp(0, h - window[0]).view(-1, 1)
    left = (cx - window[1] / 2).long().clamp(0, w - window[1]).view(-1, 1)
    rows = top + torch.arange(window[0], device=index.device)
    columns = left + torch.arange(window[1], device=index.device)
    inverse = 1 / leaves.radius[:, leaf]
    cos, sin = (angle.cos() * inverse).view(-1, 1), (angle.sin() * inverse).view(-1, 1)
    dx, dy = columns - cx.view(-1, 1), rows - cy.view(-1, 1)
    u = (dx * cos).unsqueeze(1) + (dy * sin).unsqueeze(2)
    narrow = (1 / leaves.aspect[:, leaf]).view(-1, 1)
    v = (dy * cos * narrow).unsqueeze(2) - (dx * sin * narrow).unsqueeze(1)
    taper = leaves.taper[:, leaf].view(-1, 1, 1)
    v *= (taper * u).add_(1 + taper)  # narrower towards positive u
    u.square_()
    v.square_()
    inside = torch.maximum(u, v).add_(torch.minimum(u, v).mul_(leaves.roundness[:, leaf].view(-1, 1, 1))) < 1
    if window == (h, w):
        index.masked_fill_(inside, leaf + 1)
        return
    place = (torch.arange(n, device=index.device).view(-1, 1) * h + rows).unsqueeze(2) * w + columns.unsqueeze(1)
    flat = index.view(-1)
    flat[place] = torch.where(inside, leaf + 1, flat[place])


def _to(leaves: _Leaves, device: torch.device) -> _Leaves:
    return _Leaves(*(column.to(device) for column in vars(leaves).values()))
