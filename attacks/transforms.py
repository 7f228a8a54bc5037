"""What is done to perturbed images before the victim sees them, so that a pattern does not depend on where it lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..proxies.base import uniform
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
