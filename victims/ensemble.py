"""Several victims as one, so that a pattern is crafted against all of them (Liu et al., ICLR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from .hooks import keep_input, pooled
from .victim import Probe, Victim


class Ensemble(Victim):
    """The mean of the members' logits (Dong et al., CVPR 2018, section 3.3.2), each with its own normalisation.

    Images have the first member's size and preprocessing; members of another size get them resized. Features are the
    members' side by side, layers come in the order of their depth in their own network. Raises UsageError for fewer
    than two members, or members with different numbers of classes or on different devices.
    """

    module: _Members

    def __init__(self, victims: Sequence[Victim]) -> None:
        first = victims[0] if victims else None
        if first is None or len(victims) < 2:
            raise UsageError(f"an ensemble of {len(victims)} victims was asked for; expected two or more")
        for other in victims[1:]:
            if (other.num_classes, other.device) != (first.num_classes, first.device):
                raise UsageError(
                    f"{first.name} has {first.num_classes} classes on {first.device}, {other.name} has "
                    f"{other.num_classes} on {other.device}; the members of an ensemble must agree"
                )
        super().__init__(
            _Members(victims),
            name="+".join(victim.name for victim in victims),
            weights="ensemble",
            preprocessing=first.preprocessing,
            device=first.device,
            precision="fp32",  # of the mean; each member keeps its own
            copy_module=False,
        )

    def probe(self, x: Tensor, layers: Sequence[str] = (), inputs_of: Sequence[str] = ()) -> Probe:
        """As a victim's, with the features of all members side by side (B, sum of F)."""
        seen: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for number, victim in enumerate(self.module.victims):
                if victim.head is not None:
                    hook = victim.head.register_forward_pre_hook(keep_input(seen, str(number)))
                    hooks.callback(hook.remove)
            probe = super().probe(x, layers, inputs_of)
        features = torch.cat([pooled(head) for head in seen.values()], 1)
        return Probe(probe.logits, self.whole(features, len(x)), probe.layers)

    def layers(self) -> list[str]:
        found = [
            (place / len(names), number, f"members.{number}.{name}")
            for number, names in enumerate(victim.layers() for victim in self.module.victims)
            for place, name in enumerate(names)
        ]
        return [name for _, _, name in sorted(found)]

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "members": [victim.describe() for victim in self.module.victims]}


class _Members(nn.Module):
    def __init__(self, victims: Sequence[Victim]) -> None:
        super().__init__()
        self.victims = list(victims)
        self.members = nn.ModuleList(victim.module for victim in victims)
        self.closed = any(victim.head is None for victim in victims)
        self.differentiable = all(victim.differentiable for victim in victims)

    def forward(self, x: Tensor) -> Tensor:
        first = self.victims[0]
        pixels = x * first.std + first.mean  # the ensemble has normalised as its first member does
        return torch.stack([victim(_fitted(pixels, victim)) for victim in self.victims]).mean(0)


def _fitted(pixels: Tensor, victim: Victim) -> Tensor:
    size = victim.input_size[1:]
    if pixels.shape[-2:] == size:
        return pixels
    return functional.interpolate(pixels, size, mode="bilinear", antialias=True)
