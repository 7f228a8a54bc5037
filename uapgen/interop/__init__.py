"""Bridges to other toolkits; each module imports its toolkit when it is imported itself."""

from __future__ import annotations

from torch import Tensor, nn

from ..victims import Victim


class VictimModule(nn.Module):
    """Pixels (B,3,H,W) in [0,1] to logits (B,K). The victim is no submodule, so that nobody can train or move it."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim

    def forward(self, x: Tensor) -> Tensor:
        return self.victim(x)
