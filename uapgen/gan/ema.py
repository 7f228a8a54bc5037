"""Exponential moving average of a generator, buffers included."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from ..errors import UsageError

Module = TypeVar("Module", bound=nn.Module)


class Ema(Generic[Module]):
    """`.module` is the average of `source`, in eval mode, without gradients; it equals `source` until `start` images.

    halflife: in images, so that it means the same for every batch size. The published decay of 0.9999 a step at batch
    256 is 1.77 million images; the published start, 20,000 steps of 256, is 5.12 million.
    """

    def __init__(self, source: Module, *, halflife: float, start: int = 0) -> None:
        if not halflife > 0:
            raise UsageError(f"EMA half-life {halflife} is not positive; it is counted in images, e.g. 10000")
        self.halflife, self.start = halflife, start
        self.module: Module = copy.deepcopy(source).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, nimg: int, batch: int) -> None:
        """Call after each step: `nimg` images were seen in all, `batch` of them in this step."""
        decay = 0.0 if nimg <= self.start else 0.5 ** (batch / self.halflife)
        averages = self.module.state_dict()
        for name, value in source.state_dict().items():
            if decay and value.is_floating_point():
                averages[name].lerp_(value, 1 - decay)
            else:  # batch norm's step counter has no average
                averages[name].copy_(value)
