"""The objective that the stages of cbgan share: energies of layers, agreement, cosines at logits and features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ...errors import UsageError
from ...victims import Probe, Victim
from ..core.losses import agreement, cosine, log_energy
from ..core.method import at_least, within
from ..core.run import Crafting


@dataclass(frozen=True)
class Objective:
    """Weights of the losses, and which layers' energy counts."""

    activation: Annotated[
        float, at_least(0, at_most=1000), "weight of the log-energy of the layers, on perturbed images"
    ] = 0.5
    displacement: Annotated[
        float, at_least(0, at_most=1000), "weight of the log-energy of their difference from clean ones"
    ] = 0.5
    logits: Annotated[float, at_least(0, at_most=1000), "weight of the cosine of logits, perturbed and clean"] = 0.0
    features: Annotated[float, at_least(0, at_most=1000), "weight of the cosine of features, perturbed and clean"] = 0.0
    agreement: Annotated[
        float, at_least(0, at_most=1000), "weight of the perturbed logits' agreement with their mean"
    ] = 0.5
    start: Annotated[
        float, within(0, 1, high_open=True), "where the layers that count begin, as a share of the depth"
    ] = 0.3
    end: Annotated[float, within(0, 1, low_open=True), "where they end, as a share of the depth"] = 1.0

    def check(self, victim: Victim) -> None:
        """Raises UsageError where no layer, or no loss, is left."""
        if self.start >= self.end:
            raise UsageError(f"cbgan: start={self.start} is not below end={self.end}; no layer lies between them")
        layers = self.activation + self.displacement if victim.layers() else 0
        if not layers + self.logits + self.features + self.agreement:
            raise UsageError("cbgan: all weights of the loss that this victim feels are 0; raise one")

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
