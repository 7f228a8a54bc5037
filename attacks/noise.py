"""Random +-eps: the floor under every fooling rate."""

from __future__ import annotations

import torch
from torch import Tensor

from ..perturbation.ball import project
from .core.method import register
from .core.run import Crafting


@register("noise", paper="floor, no paper", year=None, norms=("linf", "l2"))
def noise(run: Crafting) -> Tensor:
    """A random sign per pixel and channel: what a pattern of this size does without having learnt anything."""
    signs = torch.randint(0, 2, (1, *run.victim.input_size), generator=run.rng("noise")) * 2.0 - 1.0
    return project(run.eps * signs, run.eps, run.norm)
