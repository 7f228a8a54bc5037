"""Sheets of many images in one picture."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor
from torch.nn.functional import pad

from ..runtime import atomic_write


def save_grid(images: Tensor, path: str | Path, *, columns: int | None = None) -> None:
    """Images (N,3,H,W) in [0,1] as one PNG, row by row without gaps; nearly square unless `columns` is given."""
    from PIL import Image

    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    levels = images.detach().float().cpu().clamp(0, 1).mul(255).round().byte()
    levels = pad(levels, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(images)))
    _, channels, height, width = levels.shape
    tiles = levels.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    sheet = tiles.reshape(rows * height, columns * width, channels).numpy()
    with atomic_write(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
