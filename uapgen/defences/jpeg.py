"""JPEG: the real one, which has no gradient, and kornia's, which has."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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
