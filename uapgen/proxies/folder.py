"""A folder of image files as a source; the only source here that has seen photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ..errors import UapgenError, UsageError
from ..perturbation.card import DATA_CLASSES
from .base import as_size

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}


class Folder:
    """The images under `path`, sub-folders included, in sorted order; batches draw with replacement.

    `transform` turns a PIL RGB image into (3,H,W), uint8 or float in [0,1] (`victim.transform` does). Every file is
    decoded once, at the first batch, and kept as uint8. Raises UsageError for a bad class, UapgenError for an empty
    folder, and at the first batch for a file that cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        transform: Callable[[Image.Image], Tensor],
        *,
        data_class: str = "proxy",
        device: torch.device | str = "cpu",
        limit: int | None = None,
    ) -> None:
        if data_class not in DATA_CLASSES[1:]:
            raise UsageError(f"a folder of images is 'proxy' or 'driven', not {data_class!r}")
        self.path, self.transform, self.data_class = Path(path), transform, data_class
        self.device = torch.device(device)
        self.files = list_images(self.path)[:limit]
        self._pixels: Tensor | None = None

    def describe(self) -> dict[str, Any]:
        names = "\n".join(file.relative_to(self.path).as_posix() for file in self.files)
        digest = hashlib.sha256(names.encode()).hexdigest()
        return {"source": "folder", "name": self.path.resolve().name, "n": len(self.files), "list_sha256": digest}

    @property
    def pixels(self) -> Tensor:
        """All images (N,3,H,W) uint8, on the CPU."""
        if self._pixels is None:
            self._pixels = _stack([self._decode(file) for file in self.files], self.files)
        return self._pixels

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1]."""
        pick = torch.randint(0, len(self.files), (n,), generator=generator)
        return self.pixels[pick].to(self.device).float().div_(255)

    def _decode(self, file: Path) -> Tensor:
        image = self.transform(open_rgb(file))
        if image.is_floating_point():
            image = (image * 255).round().clamp(0, 255)
        return image.to(torch.uint8)


def open_rgb(file: Path, *, upright: bool = False) -> Image.Image:
    """Decodes a file; `upright` turns it as the camera's orientation mark says.

    Raises UapgenError, naming the file, when Pillow cannot decode it.
    """
    try:
        with Image.open(file) as image:
            return (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UapgenError(f"{file} cannot be read as an image ({error}); remove or replace it") from error


def centre_crop(size: int | tuple[int, int]) -> Callable[[Image.Image], Tensor]:
    """PIL image -> (3,H,W) uint8: resized until `size` is covered, then its centre."""
    h, w = as_size(size)

    def transform(image: Image.Image) -> Tensor:
        return pil_to_tensor(ImageOps.fit(image, (w, h), Image.Resampling.BILINEAR))

    return transform


def list_images(path: Path) -> list[Path]:
    """Image files under `path`, sorted by relative path (the same order everywhere), without hidden ones."""
    if not path.is_dir():
        raise UapgenError(f"{path} is not a folder; expected one with image files")
    found = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    names = sorted(file.relative_to(path) for file in found)
    files = [path / name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not files:
        raise UapgenError(f"{path} holds no image files ({', '.join(sorted(SUFFIXES))}), nor do its sub-folders")
    return files


def _stack(images: list[Tensor], files: list[Path]) -> Tensor:
    for image, file in zip(images, files, strict=True):
        if image.shape != images[0].shape:
            shapes = f"{tuple(image.shape)} and {tuple(images[0].shape)}"
            raise UapgenError(
                f"{file} and {files[0]} become {shapes}; the transform must give one size (resize and crop)"
            )
    return torch.stack(images)
