"""The objective that the stages of cbgan share: activation energy, cosine at the logits, cosine at the features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..victims import Probe, Victim
from .losses import activation_energy, cosine


@dataclass(frozen=True)
class Objective:
    """Weights of the three losses, and `depth`, the share of the victim's layers (from the input on) whose energy
    counts."""

    activation: float = 1.0
    logits: float = 0.0
    features: float = 0.0
    depth: float = 0.9

    @property
    def needs_clean(self) -> bool:
        return bool(self.logits or self.features)

    def layers(self, victim: Victim) -> list[str]:
        names = victim.layers() if self.activation else []
        return names[: max(1, int(self.depth * len(names)))]

    def clean(self, victim: Victim, images: Tensor) -> Probe | None:
        """The victim's view of the clean images, where a weight needs it; forward only."""
        if not self.needs_clean:
            return None
        with torch.no_grad():
            return victim.probe(images)

    def __call__(self, victim: Victim, images: Tensor, clean: Probe | None) -> tuple[Tensor, Probe]:
        """The loss on perturbed images (B,3,H,W), to be minimised, and what the victim showed."""
        probe = victim.probe(images, layers=self.layers(victim))
        loss = images.new_zeros(())
        if self.activation and probe.layers:
            loss = loss + self.activation * activation_energy(probe.layers)
        if clean is not None:
            loss = loss + self.logits * cosine(clean.logits, probe.logits)
            loss = loss + self.features * cosine(clean.features, probe.features)
        return loss, probe
