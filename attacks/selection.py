"""Choosing among candidates on held-out proxies: images that no stage trained on, and never an evaluation image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proxies import ProxySource
from .loop import Crafting


class HeldOut:
    """Fixed proxy images with the victim's clean logits, computed once; `score(delta)` ranks patterns."""

    def __init__(self, run: Crafting, sources: list[ProxySource], n: int, batch: int) -> None:
        self.run, self.sources, self.batch = run, sources, batch
        each = -(-n // len(sources))
        images = [source.batch(each, run.rng("held-out", i)) for i, source in enumerate(sources)]
        self.images = torch.cat(images)
        self.clean = self._logits(self.images)

    def _logits(self, images: Tensor) -> Tensor:
        self.run.cost.image_forwards += len(images)
        with torch.no_grad():
            return torch.cat([self.run.victim(part) for part in images.split(self.batch)])

    def score(self, delta: Tensor) -> float:
        """Fooling rate on the held-out proxies, plus a hundredth of the cosine distance of the logits to break ties."""
        perturbed = self._logits((self.images + delta).clamp(0, 1))
        fooled = (perturbed.argmax(1) != self.clean.argmax(1)).float().mean()
        distance = 1 - F.cosine_similarity(perturbed, self.clean).mean()
        return round((fooled + 0.01 * distance).item(), 6)
