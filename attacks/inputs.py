"""Inputs as some published code feeds them."""

from __future__ import annotations

from torch import Tensor

from ..victims import Victim


def unnormalised(victim: Victim, x: Tensor) -> Tensor:
    """Pixels for which the network behind `victim` sees `x` (B,3,H,W) itself.

    The public code of several layer methods feeds pixels without mean and standard deviation, that is, at about a
    quarter of the contrast at which the pattern is evaluated. Where a method's published result depends on it, the
    method has a parameter `normalise`, false by default.
    """
    return x * victim.std + victim.mean
