"""Input transformations that are said to help against perturbations. Images (B,3,H,W) float in [0,1], in and out.

What draws takes one generator an image, so that an image's draw does not depend on the batch it came in. JPEG has two
forms: the real one, which has no gradient, and kornia's, which has.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError

SHRINK = 299 / 331  # resize-pad: the smallest of the sizes that the paper draws, as a share of the padded one
TV_WEIGHT, TV_STEPS = 0.05, 30
DUAL_STEP = 0.25  # Chambolle proves 1/8 and finds that 1/4 converges


def reduce_bits(x: Tensor, depth: int) -> Tensor:
    """Colours rounded to `depth` bits (Xu et al., "Feature squeezing", NDSS 2018). Gradients go straight through."""
    levels = 2**depth - 1
    return x + ((x * levels).round() / levels - x).detach()


def median(x: Tensor, size: int) -> Tensor:
    """Median of size x size pixels for each channel, size odd (Xu et al., NDSS 2018); borders are mirrored."""
    from kornia.filters import median_blur

    half = size // 2
    _check_fits(x, half, f"median{size}")
    padded = functional.pad(x, (half,) * 4, mode="reflect")
    return median_blur(padded, (size, size))[..., half:-half, half:-half]


def gauss(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels, cut off at three sigma; borders are mirrored."""
    from kornia.filters import gaussian_blur2d

    half = max(1, math.ceil(3 * sigma))
    _check_fits(x, half, f"gauss{sigma:g}")
    return gaussian_blur2d(x, (2 * half + 1, 2 * half + 1), (sigma, sigma))


def bilateral(x: Tensor) -> Tensor:
    """Mean over 5x5 pixels weighted by distance (sigma 1.5 pixels) and by difference in colour (sigma 0.1)."""
    from kornia.filters import bilateral_blur

    _check_fits(x, 2, "bilateral")
    return bilateral_blur(x, (5, 5), 0.1, (1.5, 1.5))


def total_variation(x: Tensor, weight: float = TV_WEIGHT, steps: int = TV_STEPS) -> Tensor:
    """argmin_u |u - x|^2 / 2 + weight * TV(u), each channel for itself.

    `steps` steps of Chambolle's projection (J. Math. Imaging Vis. 20, 2004, eq. 9). Guo et al. (ICLR 2018) first leave
    out random pixels; here none are, so that the same image always has the same answer.
    """
    p = x.new_zeros((2, *x.shape))
    for _ in range(steps):
        slope = _gradient(_divergence(p) - x / weight)
        p = (p + DUAL_STEP * slope) / (1 + DUAL_STEP * slope.norm(dim=0))
    return (x - weight * _divergence(p)).clamp(0, 1)


def resize_and_pad(x: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Each image shrunk to a random share of its size and put at a random place on black (Xie et al., ICLR 2018).

    The paper enlarges from 299 to up to 331 pixels; here the result keeps the victim's size and the image shrinks, by
    the same ratio.
    """
    return torch.cat([_shrunk(image, draw) for image, draw in zip(x.split(1), draws, strict=True)])


def shift(x: Tensor, draws: Sequence[torch.Generator], most: int) -> Tensor:
    """Each image moved by up to `most` pixels in both directions, uniformly; border pixels are repeated."""
    _check_fits(x, most, f"shift{most}")
    h, w = x.shape[-2:]
    padded = functional.pad(x, (most,) * 4, mode="replicate")
    corners = [torch.randint(0, 2 * most + 1, (2,), generator=draw).tolist() for draw in draws]
    moved = zip(padded, corners, strict=True)
    return torch.stack([image[:, top : top + h, left : left + w] for image, (top, left) in moved])


def _shrunk(image: Tensor, draw: torch.Generator) -> Tensor:
    h, w = image.shape[-2:]
    share, down, right = torch.rand(3, generator=draw).tolist()
    share = SHRINK + (1 - SHRINK) * share
    size = max(1, round(share * h)), max(1, round(share * w))
    top, left = int(down * (h - size[0] + 1)), int(right * (w - size[1] + 1))
    small = functional.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)
    return functional.pad(small, (left, w - size[1] - left, top, h - size[0] - top))


def _gradient(u: Tensor) -> Tensor:
    """Forward differences (2,B,C,H,W), zero at the far borders."""
    down, right = torch.zeros_like(u), torch.zeros_like(u)
    down[..., :-1, :] = u[..., 1:, :] - u[..., :-1, :]
    right[..., :-1] = u[..., 1:] - u[..., :-1]
    return torch.stack([down, right])


def _divergence(p: Tensor) -> Tensor:
    """Minus the adjoint of `_gradient`."""
    down, right = p[0][..., :-1, :], p[1][..., :-1]
    vertical = functional.pad(down, (0, 0, 0, 1)) - functional.pad(down, (0, 0, 1, 0))
    return vertical + functional.pad(right, (0, 1)) - functional.pad(right, (1, 0))


def _check_fits(x: Tensor, margin: int, name: str) -> None:
    h, w = x.shape[-2:]
    if margin >= min(h, w):
        raise UsageError(f"defence {name} reaches {margin} pixels far, and the images are {h}x{w}; take a smaller one")


THREADS = min(8, os.cpu_count() or 1)  # Pillow's codec releases the interpreter


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Images (B,3,H,W) in [0,1] as 8-bit JPEG files of that quality give them back: libjpeg with 4:2:0 chroma."""

    def through_file(pixels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    pixels = (x.detach() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    with ThreadPoolExecutor(min(THREADS, len(pixels))) as pool:
        decoded = np.stack(list(pool.map(through_file, pixels)))
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(x.device, x.dtype).contiguous() / 255


def smooth_jpeg(x: Tensor, quality: int) -> Tensor:
    """A JPEG that lets a gradient through: kornia's, whose rounding is a polynomial near each integer (Shin and Song,
    2017). About one level of 255 away from the real one.
    """
    from kornia.enhance import jpeg_codec_differentiable

    q = torch.tensor([float(quality)], device=x.device, dtype=x.dtype)
    return jpeg_codec_differentiable(x.clamp(0, 1).contiguous(), q).clamp(0, 1)
