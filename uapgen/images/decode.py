"""One decoder: the bytes of a picture file as 8-bit RGB, and what is kept of them as a tensor."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ..errors import UapgenError

Encoded = Path | bytes  # a picture file, or what is in one
DEEPEST = 65535  # the largest value of a 16-bit pixel


def decode(encoded: Encoded, *, upright: bool = False) -> Image.Image:
    """Any picture file as 8-bit RGB; the first one of several in a file.

    16-bit grey keeps its high byte (Pillow alone would saturate it); transparency is dropped. EXIF orientation is
    ignored, as in the published ImageNet accuracies, unless `upright` asks for it. Raises what Pillow raises, which is
    anything on broken bytes, and ValueError for pixels whose scale is not known: floats, and integers beyond 16 bits.
    """
    with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as file:
        return as_rgb(ImageOps.exif_transpose(file) if upright else file)


def as_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as 8-bit RGB, see `decode`."""
    if image.mode == "F":
        raise ValueError("its pixels are floats of an unknown scale; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray(_high_byte(np.asarray(image))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def read_picture(encoded: Encoded, name: str | Path, *, upright: bool = False) -> Image.Image:
    """`decode`, for callers to whom an unreadable picture is an error: raises UapgenError, which gives `name`."""
    try:
        return decode(encoded, upright=upright)
    except Exception as error:  # whatever the decoders raise
        raise UapgenError(f"{name} cannot be read as an image ({reason(error)}); remove or replace it") from error


def reason(error: Exception) -> str:
    """What went wrong, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def as_levels(image: Tensor) -> Tensor:
    """Pixels in [0,1] rounded to uint8; uint8 as it is."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8) if image.is_floating_point() else image.to(torch.uint8)


def centre_crop(size: int | tuple[int, int]) -> Callable[[Image.Image], Tensor]:
    """PIL image -> (3,H,W) uint8: resized until `size` (one side, or (H,W)) is covered, then its centre."""
    h, w = (size, size) if isinstance(size, int) else size

    def transform(image: Image.Image) -> Tensor:
        return pil_to_tensor(ImageOps.fit(image, (w, h), Image.Resampling.BILINEAR))

    return transform


def _high_byte(grey: np.ndarray) -> np.ndarray:
    if grey.max(initial=0) > DEEPEST:
        raise ValueError(f"its pixels go up to {grey.max()}, beyond 16 bits; save it with 8 or 16 bits")
    return (grey.clip(0, DEEPEST) // 256).astype(np.uint8)
