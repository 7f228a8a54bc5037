"""Images that are in memory already, as one kind: tensors, arrays, pairs with labels, Datasets, DataLoaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torchvision.transforms.functional import pil_to_tensor

from ..errors import UsageError
from ..runtime import tensor_sha256
from .decode import as_levels, as_rgb
from .labels import UNKNOWN
from .listing import spread

SLACK = 1e-4  # of the range [0,1]: resizing and float16 overshoot by that much
IMAGE_KEYS, LABEL_KEYS = ("image", "img", "pixel_values"), ("label", "labels")
FORMS = (
    "a path, a tensor (N,3,H,W) in [0,1] or uint8, an array (N,H,W,3), a pair (images, labels), a torch Dataset or a "
    "DataLoader"
)


@dataclass(frozen=True)
class Memory:
    """`pictures` (3,H,W) uint8 by name, which is the position in what was given, and their labels, -1 where unknown."""

    pictures: dict[str, Tensor] = field(repr=False)
    labels: list[int]
    kind = "memory"  # in cards
    root = Path("memory")

    @property
    def names(self) -> list[str]:
        return list(self.pictures)

    @property
    def notes(self) -> tuple[str, ...]:
        if any(label != UNKNOWN for label in self.labels):
            return ()
        return ("labels unknown (images in memory, without labels): fooling rates only",)

    def size(self, name: str) -> int:
        """How many bytes a picture has."""
        return self.pictures[name].numel()

    @cached_property
    def sha256(self) -> str:
        """Hash of all pixels."""
        return tensor_sha256(*self.pictures.values())


def in_memory(data: Any, limit: int | None = None) -> Memory:
    """`data` as 8-bit pictures: see `FORMS`. A map-style Dataset is asked for `limit` images alone, evenly spread.

    Items of a Dataset are an image, (image, label, ...), or a mapping with "image" and "label"; an image is a tensor or
    array as above without N, or of PIL. Everything is read once and kept, about 150 kB for an image of 224 x 224, so
    that random transforms give all passes the same images. Raises UsageError for other types, shapes and ranges.
    """
    positions: Iterable[int] | None = None
    if isinstance(data, Tensor | np.ndarray) or _is_pair(data):
        parts = iter([_batch(data)])
    elif isinstance(data, DataLoader):
        parts = (_batch(part) for part in data)
    elif isinstance(data, IterableDataset):
        parts = (_item(item) for item in data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | bytes | Mapping):
        positions = spread(len(data), limit)
        parts = _items(data, positions)
    else:
        raise UsageError(f"images are a {type(data).__name__}; expected {FORMS}")
    pictures, labels = list[Tensor](), list[int]()
    for images, classes in parts:
        pictures += images
        labels += classes
    if not pictures:
        raise UsageError(f"the {type(data).__name__} holds no image; expected at least one")
    names = map(str, range(len(pictures)) if positions is None else positions)
    return Memory(dict(zip(names, pictures, strict=True)), labels)


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray)


def _items(data: Any, positions: Iterable[int]) -> Iterator[tuple[list[Tensor], list[int]]]:
    for position in positions:
        try:
            yield _item(data[position])
        except UsageError as error:
            raise UsageError(f"item {position} of the {type(data).__name__}: {error}") from error


def _parts(item: Any) -> tuple[Any, Any]:
    """The image and the label (None where there is none) of an item or batch."""
    if isinstance(item, Mapping):
        image, label = (next((item[key] for key in keys if key in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS))
        if image is None:
            raise UsageError(f"a mapping with the keys {', '.join(map(str, item))}; expected 'image', and 'label'")
        return image, label
    if isinstance(item, tuple | list):
        return (*item, None, None)[:2]
    return item, None


def _batch(part: Any) -> tuple[list[Tensor], list[int]]:
    images, labels = _parts(part)
    pixels = _pixels(images)
    return list(pixels), [UNKNOWN] * len(pixels) if labels is None else _labels(labels, len(pixels))


def _item(item: Any) -> tuple[list[Tensor], list[int]]:
    image, label = _parts(item)
    if isinstance(image, Image.Image):
        pixels = pil_to_tensor(as_rgb(image)).unsqueeze(0)
    elif isinstance(image, Tensor | np.ndarray):
        pixels = _pixels(image[None])
    else:
        raise UsageError(f"the image is a {type(image).__name__}; expected a tensor, an array or a PIL image")
    return list(pixels), [UNKNOWN] if label is None else _labels(torch.as_tensor(label).reshape(-1), 1)


def _pixels(images: Any) -> Tensor:
    """(N,3,H,W) uint8 of images with channels first or last, uint8 or floats in [0,1]; a copy."""
    if not isinstance(images, Tensor | np.ndarray):
        raise UsageError(f"images are a {type(images).__name__}; expected a tensor or an array of images")
    if isinstance(images, np.ndarray) and images.dtype.kind == "f":
        images = images.astype(np.float32)
    shape, kind = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if len(shape) != 4 or 0 in shape or 3 not in (shape[1], shape[3]):
        hint = ": give images[None]" if len(shape) == 3 else ""
        hint = ": give images.expand(-1, 3, -1, -1)" if len(shape) == 4 and shape[1] == 1 else hint
        raise UsageError(f"images have shape {shape}; expected (N,3,H,W) or (N,H,W,3) with N > 0{hint}")
    if kind != "uint8" and "float" not in kind:
        raise UsageError(f"images are {kind}; expected floats in [0,1], or levels 0..255 as uint8")
    pixels = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images.detach().cpu()
    if pixels.is_floating_point():
        pixels = pixels.float()
        low, high = float(pixels.min()), float(pixels.max())
        if not -SLACK <= low <= high <= 1 + SLACK:  # also refuses nan
            hint = (
                "divide them by 255" if 0 <= low <= high <= 255 else "normalisation is the victim's own, leave it out"
            )
            raise UsageError(f"images are in [{low:.4g}, {high:.4g}]; expected [0,1]: {hint}")
    pixels = as_levels(pixels)
    pixels = pixels if shape[1] == 3 else pixels.permute(0, 3, 1, 2)
    return pixels.clone(memory_format=torch.contiguous_format)


def _labels(labels: Any, n: int) -> list[int]:
    found = torch.as_tensor(labels)
    if found.ndim != 1 or len(found) != n or found.is_floating_point() or found.is_complex():
        kind = str(found.dtype).removeprefix("torch.")
        hint = ": give labels.argmax(1)" if found.ndim == 2 else ""
        raise UsageError(
            f"labels are {kind} {tuple(found.shape)}; expected {n} class indices, one for each image{hint}"
        )
    return [int(label) for label in found]
