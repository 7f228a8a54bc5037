"""The figures of a hardening run, checked before any work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError
from ..perturbation.ball import check_eps


@dataclass(frozen=True)
class Settings:
    """`eps` and `delta_step` (None: eps) in pixel units, [0,1]; `steps` are pairs of a step on delta and one on the
    weights, over `batch` images each; `held_out` is the share of the images that only measures.

    Raises UsageError for values that make no sense.
    """

    eps: float
    steps: int
    batch: int = 32
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    delta_step: float | None = None
    update_batch_norm: bool = False
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_eps(self.eps)
        step = self.delta_step
        limits = {
            "steps": (self.steps, self.steps >= 1, "1 or more"),
            "batch": (self.batch, self.batch >= 1, "1 or more"),
            "lr": (self.lr, self.lr > 0 and math.isfinite(self.lr), "above 0"),
            "momentum": (self.momentum, 0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
            "delta_step": (step, step is None or 0 < step <= 2, "above 0, in pixel units"),
            "held_out": (self.held_out, 0 < self.held_out < 1, "a share between 0 and 1"),
        }
        for name, (value, fits, expected) in limits.items():
            if not fits:
                raise UsageError(f"{name} {value} is not possible; expected {expected}")
