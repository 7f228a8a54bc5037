"""The images of a crafting step: crops of faint noise + the current pattern, and proxies."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxies import DeltaCrops, GaussianPrior, ProxySource
from .crafting import Crafting


class ImagesWithCrops:
    """Batches of `n` images, the share `crops` of them crops of the pattern that `batch` is given, the rest proxies."""

    def __init__(self, run: Crafting, proxies: ProxySource, n: int, crops: float) -> None:
        prior = GaussianPrior(run.victim.input_size[1:], run.victim.device, std=10)
        self.delta = torch.zeros(1, *run.victim.input_size)
        self.crops = DeltaCrops(prior, lambda: self.delta, crops=n)
        self.proxies, self.n = proxies, n
        self.counts = (round(crops * n), n - round(crops * n))

    def batch(self, delta: Tensor, generator: torch.Generator) -> Tensor:
        """(n,3,H,W) in [0,1] for delta (1,3,H,W)."""
        self.delta = delta
        parts = zip((self.crops, self.proxies), self.counts, strict=True)
        return torch.cat([source.batch(n, generator) for source, n in parts if n])
