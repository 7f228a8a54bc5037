"""Labelled images for evaluation: which files, in which order, with which labels, and what to do with broken ones."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import UapgenError, UsageError
from .labels import find_labels, foolbox_labels
from .listing import FOOLBOX, find_images
from .tars import Member

MAX_CORRUPT = 0.01  # of the images; more than that is a broken copy, not a stray file


class Batch(NamedTuple):
    """`images` (B,3,H,W) uint8 (None when none could be read), their positions, and (position, reason) of the rest."""

    images: Tensor | None
    positions: Tensor
    corrupt: list[tuple[int, str]]


@dataclass(frozen=True)
class ImageSet(Dataset):
    """Images in a fixed order. `labels` are class indices, -1 where unknown; `names` are relative to `root`.

    `folder_sha256` hashes the names in the whole folder, before any limit, as cards do for folders of crafting images.
    """

    root: Path
    names: list[str]
    labels: list[int]
    transform: Callable[[Any], Tensor]
    notes: tuple[str, ...] = ()
    folder_sha256: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> tuple[int, Tensor | str]:
        """(position, (3,H,W) uint8), or (position, reason) for a file that cannot be decoded."""
        try:
            image = read_rgb(self.locate(self.names[position]))
        except Exception as error:  # Pillow's decoders raise anything on broken bytes; the file is named and counted
            return position, " ".join(str(error).split()) or type(error).__name__
        return position, self.transform(image)

    def locate(self, name: str) -> Path | IO[bytes]:
        """Where the bytes of an image are."""
        return self.root / name

    def size(self, name: str) -> int:
        """How many bytes an image file has."""
        return (self.root / name).stat().st_size

    def batches(
        self,
        batch_size: int,
        *,
        workers: int | None = None,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
        positions: Sequence[int] | None = None,
    ) -> DataLoader:
        """This rank's share of `positions` (default: all), every `world`-th from the `rank`-th on, as `Batch`es: no
        padding, nothing counted twice.
        """
        share = (range(len(self)) if positions is None else positions)[rank::world]
        workers = default_workers() if workers is None else workers
        return DataLoader(self, batch_size, sampler=share, num_workers=workers, collate_fn=_collate, pin_memory=pin)

    @property
    def list_sha256(self) -> str:
        """Hash of names and labels in order: two results with the same hash are about the same images."""
        return _sha256(f"{name}\t{label}" for name, label in zip(self.names, self.labels, strict=True))

    def describe(self) -> dict[str, Any]:
        return {
            "path": str(self.root),
            "images": len(self),
            "labelled": sum(label >= 0 for label in self.labels),
            "list_sha256": self.list_sha256,
        }

    def check_corrupt(self, corrupt: Sequence[tuple[int, str]]) -> None:
        """Raises UapgenError when more than 1% of the set could not be read."""
        if len(corrupt) > MAX_CORRUPT * len(self):
            position, reason = corrupt[0]
            raise UapgenError(
                f"{len(corrupt)} of {len(self)} images in {self.root} cannot be read, more than {MAX_CORRUPT:.0%}; "
                f"the first is {self.names[position]} ({reason}); repair or remove them"
            )


@dataclass(frozen=True)
class ArchivedImages(ImageSet):
    """Images inside tars: `members` by name; `root` is the tar, or the folder of tars."""

    members: Mapping[str, Member] = field(default_factory=dict)

    def locate(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.members[name].read())

    def size(self, name: str) -> int:
        return self.members[name].size


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _collate(items: list[tuple[int, Tensor | str]]) -> Batch:
    good = [(position, image) for position, image in items if isinstance(image, Tensor)]
    corrupt = [(position, image) for position, image in items if isinstance(image, str)]
    images = torch.stack([image for _, image in good]) if good else None
    return Batch(images, torch.tensor([position for position, _ in good], dtype=torch.int64), corrupt)


def default_workers() -> int:
    """Decoding processes for each rank: none on one or two cores, where they would only compete with the victim."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return 0 if cores <= 2 else min(8, cores - 1)


def read_rgb(path: Path | IO[bytes]) -> Image.Image:
    """Any picture file as 8-bit RGB. 16-bit grey keeps its high byte (Pillow alone would saturate it); transparency is
    dropped; EXIF orientation is ignored, as in the published ImageNet accuracies.
    """
    with Image.open(path) as image:
        if image.mode.startswith("I"):
            high = (np.asarray(image).clip(0, 65535) // 256).astype(np.uint8)
            return Image.fromarray(high).convert("RGB")
        if image.mode == "P" and "transparency" in image.info:
            return image.convert("RGBA").convert("RGB")
        return image.convert("RGB")


def open_images(
    data: str | Path,
    transform: Callable[[Any], Tensor],
    *,
    labels: Path | None = None,
    num_classes: int = 1000,
    limit: int | None = None,
) -> ImageSet:
    """The images under the folder `data`, sorted by name, with labels for a victim of `num_classes` classes.

    `data` may be a .tar too, or a folder of them, webdataset's shards among them. Labels come from the first that
    applies: the CSV `labels` or `data`/labels.csv (header `file,label`, paths relative to `data`); in tars, NAME.cls
    beside NAME.jpg; folders with WordNet names when the victim has ImageNet's 1000 classes; folders with integer names;
    as many folders as classes, in alphabetical order. Else they are unknown, and a note says so. `data` = "foolbox" is
    the 20 labelled ImageNet images inside the foolbox package. `limit` keeps that many images, evenly spread
    over the sorted list, so that a tree of classes stays balanced.

    `transform` takes a PIL image to (3,H,W) uint8 (`Victim.transform`). Raises UsageError for a folder that is missing
    or holds no image, and for labels that do not fit.
    """
    root, names, archive = find_images(data)
    if str(data) == FOOLBOX and labels is None:
        found, notes = foolbox_labels(names, num_classes)
    else:
        found, notes = find_labels(root, names, labels, num_classes, archive)
    keep = spread(len(names), limit)
    chosen = [names[i] for i in keep], [found[i] for i in keep]
    described = root, *chosen, transform, tuple(notes), _sha256(names)
    return ArchivedImages(*described, archive.images) if archive else ImageSet(*described)


def spread(n: int, limit: int | None) -> list[int]:
    """At most `limit` of the positions 0..n-1, evenly spread: position i*n // limit for i < limit."""
    if limit is None or limit >= n:
        return list(range(n))
    if limit < 1:
        raise UsageError(f"limit {limit} leaves no image; expected at least 1")
    return [i * n // limit for i in range(limit)]
