"""Two regularities of natural images that procedural ones borrow: correlated colours and 1/f spectra.

Ruderman and Bialek, "Statistics of natural images" (1994): amplitude falls as one over frequency. Ohta, Kanade and
Sakai, "Color information for region segmentation" (1980): brightness varies most, then red against blue, then green.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..runtime import uniform

# Rows: red against blue, green against magenta; each of unit length and without brightness.
CHROMA = torch.tensor([[0.70711, 0.0, -0.70711], [-0.40825, 0.8165, -0.40825]])


def colours(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """RGB colours (*shape,3) in [0,1]: any brightness, mostly dull, sometimes saturated, least near black and white."""
    brightness = uniform(0.04, 0.96, (*shape, 1), generator)
    chroma = torch.randn((*shape, 2), generator=generator) * torch.tensor([0.40, 0.17])
    room = 0.2 + 3.2 * brightness * (1 - brightness)
    return (brightness + (chroma * room * torch.rand((*shape, 1), generator=generator)) @ CHROMA).clamp(0, 1)


def power_law_fields(
    size: tuple[int, int],
    exponent: Tensor,
    generator: torch.Generator,
    *,
    channels: int = 1,
    angle: Tensor | None = None,
    stretch: Tensor | None = None,
) -> Tensor:
    """Gaussian fields (n,channels,H,W), periodic, of mean 0 and variance 1, with amplitude spectra 1/f^exponent.

    `exponent`, `angle` (radians) and `stretch` have shape (n,); a stretch of k makes streaks k times longer than wide.
    Returned on the CPU.
    """
    h, w = size
    fy = torch.fft.fftfreq(h).view(1, h, 1)
    fx = torch.fft.rfftfreq(w).view(1, 1, -1)
    if angle is not None and stretch is not None:
        cos, sin, k = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1), stretch.view(-1, 1, 1)
        fx, fy = k * (fx * cos + fy * sin), fy * cos - fx * sin
    frequency = (fx.square() + fy.square()).sqrt().clamp_min(0.5 / max(h, w))
    amplitude = frequency.log().mul(-exponent.view(-1, 1, 1)).exp()
    amplitude[:, 0, 0] = 0  # no mean
    noise = torch.randn((len(exponent), channels, h, w // 2 + 1, 2), generator=generator)
    fields = torch.fft.irfft2(torch.view_as_complex(noise) * amplitude.unsqueeze(1), s=size)
    return fields / fields.std((2, 3), keepdim=True).clamp_min(1e-12)
