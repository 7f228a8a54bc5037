"""MS-SSIM between samples of one class: high means that the class has collapsed (Odena et al., 2017; lower is varied).

Wang, Simoncelli, Bovik, 2003: contrast and structure at every scale, luminance at the coarsest, an 11 x 11 Gaussian of
sigma 1.5 without padding, images halved by averaging. The published five scales need more than 160 pixels. `scales_for`
keeps those at which the window fits: two at 32 pixels (32, 16), three at 64, with the published exponents of the scales
kept made to sum to one. Values of other numbers of scales are not comparable, so results carry `scales`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UsageError

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al., section 3.2, finest scale first
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for pixels in [0,1]


@dataclass(frozen=True)
class Similarity:
    """`mean` and `std` over all pairs; `per_class` mean (K,), NaN where a class has fewer than two images."""

    mean: float
    std: float
    per_class: Tensor
    pairs: int
    scales: int


def scales_for(height: int, width: int) -> int:
    """How many of the five scales hold the 11-pixel window. Raises UsageError when not even the first does."""
    side, scales = min(height, width), 0
    while side >= WINDOW and scales < len(EXPONENTS):
        scales, side = scales + 1, side // 2
    if not scales:
        raise UsageError(f"images of {height} x {width} are smaller than the 11-pixel window of SSIM; enlarge them")
    return scales


def ms_ssim(x: Tensor, y: Tensor, scales: int | None = None) -> Tensor:
    """MS-SSIM (N,) of image pairs (N,C,H,W) in [0,1], per channel, then averaged; 1 for equal images.

    scales: from `scales_for` by default. A negative contrast-structure term counts as 0 (its power would be complex).
    """
    scales = scales_for(*x.shape[-2:]) if scales is None else scales
    exponents = torch.tensor(EXPONENTS[:scales], dtype=x.dtype, device=x.device)
    exponents = exponents / exponents.sum()
    result = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)
    for scale in range(scales):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        luminance, structure = _ssim_terms(x, y)
        term = luminance * structure if scale == scales - 1 else structure
        result = result * term.mean((2, 3)).clamp_min(0) ** exponents[scale]
    return result.mean(1)


def within_classes(
    images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, *, pairs: int = 200, batch: int = 500
) -> Similarity:
    """Mean MS-SSIM of `pairs` random pairs of different images in each class.

    images (N,C,H,W) uint8 or float in [0,1], labels (N,); generator: a CPU generator. 200 pairs a class is what Slim,
    "synthetic data for classifier training", 2020, reports; classes with fewer than two images are left out.
    """
    values = torch.full((num_classes, pairs), torch.nan, dtype=torch.float64)
    labels = labels.cpu()
    for label in range(num_classes):
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            continue
        first = torch.randint(0, len(members), (pairs,), generator=generator)
        other = (first + torch.randint(1, len(members), (pairs,), generator=generator)) % len(members)
        chunks = zip(members[first].split(batch), members[other].split(batch), strict=True)
        values[label] = torch.cat([ms_ssim(_unit(images[a]), _unit(images[b])).double().cpu() for a, b in chunks])
    drawn = values[~values.isnan()]
    if not len(drawn):
        raise UsageError("no class has two images; MS-SSIM within classes needs pairs")
    std = float(drawn.std()) if len(drawn) > 1 else 0.0
    return Similarity(float(drawn.mean()), std, values.mean(1), len(drawn), scales_for(*images.shape[-2:]))


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _ssim_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps (N,C,H-10,W-10)."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (var_x + var_y + C2)


def _blur(x: Tensor) -> Tensor:
    position = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    kernel = torch.exp(-(position**2) / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.conv2d(x, kernel, groups=x.shape[1]), kernel.transpose(2, 3), groups=x.shape[1])
