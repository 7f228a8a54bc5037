"""What every source of crafting images offers, and how the data class of a run follows from its sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UsageError
from ..perturbation.card import DATA_CLASSES

Size = int | tuple[int, int]  # pixels: one side for both, or (H,W)
Device = torch.device | str


class ProxySource(Protocol):
    """Images to craft on. What `batch` returns depends on n and the generator's state only, not on the device."""

    @property
    def data_class(self) -> str:
        """`none` (no image was seen), `proxy` (images of another domain) or `driven` (of the victim's domain)."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the card says about the source; JSON."""
        ...

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1] on the source's device; `generator` is a CPU generator."""
        ...


def combined_class(sources: Iterable[ProxySource]) -> str:
    """The class of a run that used all of `sources`: the one that saw most. `none` for no source at all."""
    return max((source.data_class for source in sources), key=DATA_CLASSES.index, default=DATA_CLASSES[0])


def as_size(size: Size) -> tuple[int, int]:
    """(H,W) of `size`. Raises UsageError for sides below 8 pixels."""
    h, w = (size, size) if isinstance(size, int) else size
    if min(h, w) < 8:
        raise UsageError(f"proxy images of {h}x{w} are too small; expected sides of 8 pixels or more")
    return h, w
