"""Images that somebody has, of a folder, a tar or in memory, as a source; the only source here that saw photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UapgenError, UsageError
from ..images.sets import Transform, gather
from ..perturbation.card import DATA_CLASSES
from .base import Device

if TYPE_CHECKING:
    from ..victims import Victim


class Folder:
    """What `uapgen.open_images` takes, in its order; batches draw with replacement.

    `victim`, or a transform such as `Victim.transform`, says how pictures become (3,H,W). Each is decoded once, at the
    first batch, and kept as uint8. Raises UsageError for a bad class, UapgenError for what holds no image, and at
    the first batch for a file that cannot be read.
    """

    def __init__(
        self,
        images: Any,
        victim: Victim | Transform | None = None,
        *,
        data_class: str = "proxy",
        device: Device = "cpu",
    ) -> None:
        if data_class not in DATA_CLASSES[1:]:
            raise UsageError(f"a folder of images is 'proxy' or 'driven', not {data_class!r}")
        self.images, self.data_class = gather(images, victim, error=UapgenError), data_class
        self.device = torch.device(device)
        self._pixels: Tensor | None = None

    def describe(self) -> dict[str, Any]:
        return self.images.describe_source()

    @property
    def pixels(self) -> Tensor:
        """All images (N,3,H,W) uint8, on the CPU."""
        if self._pixels is None:
            self._pixels = self.images.read()
        return self._pixels

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1]."""
        pick = torch.randint(0, len(self.images), (n,), generator=generator)
        return self.pixels[pick].to(self.device).float().div_(255)
