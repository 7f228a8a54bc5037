"""Where a pattern has its power: radially averaged spectra in cycles per image."""

from __future__ import annotations

import torch
from torch import Tensor

LOW = 28  # cycles per image: periods of 8 pixels and more in 224


def power(delta: Tensor) -> tuple[Tensor, Tensor]:
    """Squared Fourier magnitudes of delta (3,H,W), summed over channels, and their radii in cycles per image, (H,W)."""
    h, w = delta.shape[-2:]
    squared = torch.fft.fft2(delta.double()).abs().square().sum(0)
    fy, fx = torch.fft.fftfreq(h, 1 / h, dtype=torch.float64), torch.fft.fftfreq(w, 1 / w, dtype=torch.float64)
    return squared, torch.hypot(fy.view(-1, 1), fx.view(1, -1))


def radial_spectrum(delta: Tensor) -> tuple[list[int], list[float]]:
    """Mean share of all power at a frequency of radius 1, 2, ... up to half the smaller side: (radii, shares).

    Radii are rounded to whole cycles per image. White noise is flat at 1 / (H W).
    """
    squared, radius = power(delta)
    rings = radius.round().long()
    total = torch.bincount(rings.flatten(), squared.flatten())
    counts = torch.bincount(rings.flatten())
    last = min(delta.shape[-2:]) // 2
    shares = total / counts.clamp_min(1) / squared.sum().clamp_min(1e-30)
    return list(range(1, last + 1)), shares[1 : last + 1].tolist()


def low_share(delta: Tensor, below: float = LOW) -> float:
    """The share in [0,1] of the power of delta (3,H,W) that lies below `below` cycles per image, the mean included."""
    squared, radius = power(delta)
    return float(squared[radius < below].sum() / squared.sum().clamp_min(1e-30))
