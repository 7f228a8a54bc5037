"""Choosing among starts on held-out proxies: images that no stage trained on, and never an evaluation image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...proxies import ProxySource
from .run import Crafting


class HeldOut:
    """Fixed proxy images with the victim's clean logits, computed once; `score(delta)` is higher for better patterns.

    The score is the mean KL(clean || perturbed) in nats at half the pattern's strength. At full strength nearly every
    proxy is fooled by nearly every candidate, and what is left is noise: on development images the fooling rate of
    proxies did not follow that of photographs, this score on 1/f noise did. In a targeted run it is the mean
    log-probability of the target there.
    """

    def __init__(self, run: Crafting, source: ProxySource, n: int, batch: int) -> None:
        self.run, self.source, self.batch = run, run.draw_from(source), batch
        self.images = self.source.batch(n, run.rng("held-out"))
        self.clean = self._log_probabilities(self.images)

    def _log_probabilities(self, images: Tensor) -> Tensor:
        return self.run.look(
            lambda x: torch.cat([F.log_softmax(self.run.victim(part), 1) for part in x.split(self.batch)]), images
        )

    def score(self, delta: Tensor) -> float:
        """For delta (1,3,H,W)."""
        perturbed = self._log_probabilities((self.images + 0.5 * delta).clamp(0, 1))
        if self.run.target is not None:
            return round(perturbed[:, self.run.target].mean().item(), 5)
        return round(F.kl_div(perturbed, self.clean, log_target=True, reduction="batchmean").item(), 5)
