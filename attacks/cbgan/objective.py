"""The objective that the stages of cbgan share: energies of layers, agreement, cosines at logits and features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...victims import Probe, Victim
from ..core.losses import agreement, cosine, log_energy
from ..core.run import Crafting


@dataclass(frozen=True)
class Objective:
    """Weights of the losses, and which layers' energy counts: `start` to `end` as shares of the victim's depth.

    `activation` weighs the energy of what the layers say of perturbed images, `displacement` the energy of its
    difference from what they say of the clean ones.
    """

    activation: float = 0.0
    displacement: float = 0.0
    logits: float = 0.0
    features: float = 0.0
    agreement: float = 0.0
    start: float = 0.3
    end: float = 1.0

    def layers(self, victim: Victim) -> list[str]:
        names = victim.layers() if self.activation or self.displacement else []
        first = min(int(self.start * len(names)), max(0, len(names) - 1))
        return names[first : max(first + 1, int(self.end * len(names)))]

    def clean(self, run: Crafting, images: Tensor) -> Probe | None:
        """The view of the clean images (B,3,H,W), where a weight needs it: a forward pass."""
        if not (self.displacement or self.logits or self.features):
            return None
        layers = self.layers(run.victim) if self.displacement else ()
        return run.look(lambda x: run.victim.probe(x, layers=layers), images)

    def __call__(self, victim: Victim, images: Tensor, clean: Probe | None) -> tuple[Tensor, Probe]:
        """The loss on perturbed images (B,3,H,W), to be minimised, and what the victim showed."""
        probe = victim.probe(images, layers=self.layers(victim))
        loss = images.new_zeros(())
        if self.activation and probe.layers:
            loss = loss + self.activation * log_energy(probe.layers)
        if self.agreement:
            loss = loss - self.agreement * agreement(probe.logits)
        if clean is not None:
            if self.displacement and probe.layers:
                moved = [seen.float() - before.float() for seen, before in zip(probe.layers, clean.layers, strict=True)]
                loss = loss + self.displacement * log_energy(moved)
            loss = loss + self.logits * cosine(clean.logits, probe.logits)
            loss = loss + self.features * cosine(clean.features, probe.features)
        return loss, probe
