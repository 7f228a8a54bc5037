"""A fixed number of images of another source, made once and drawn from many times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..runtime import rng
from .base import ProxySource


class Pool:
    """`n` images of `source`, made at the first draw and held as bytes; each batch is a random choice among them.

    Procedural images cost about as much time as an image-gradient on a small victim, and a pattern does not care
    whether it meets one twice. Which images the pool holds depends on `seed` alone.
    """

    def __init__(self, source: ProxySource, n: int, seed: int) -> None:
        self.source, self.n, self.seed = source, n, seed
        self._images: Tensor | None = None

    @property
    def data_class(self) -> str:
        return self.source.data_class

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "pool": self.n}

    @property
    def images(self) -> Tensor:
        """All of them, (n,3,H,W) uint8."""
        if self._images is None:
            parts = [
                (self.source.batch(min(32, self.n - i), rng(self.seed, "pool", i)) * 255).round().to(torch.uint8)
                for i in range(0, self.n, 32)
            ]
            self._images = torch.cat(parts)
        return self._images

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1], multiples of 1/255."""
        picked = torch.randint(0, self.n, (n,), generator=generator)
        return self.images[picked.to(self.images.device)].float() / 255
