"""Labelled images for evaluation and crafting: which ones, in which order, with which labels, and how they are read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import UapgenError, UsageError
from .decode import as_levels, decode, reason
from .labels import IMAGENET_CLASSES, UNKNOWN, find_labels, foolbox_labels
from .listing import FOOLBOX, Listing, find_images, lines_sha256, spread
from .memory import Memory, in_memory

if TYPE_CHECKING:
    from ..victims import Victim

MAX_CORRUPT = 0.01  # of the images; more than that is a broken copy, not a stray file

Transform = Callable[[Any], Tensor]


class Batch(NamedTuple):
    """`images` (B,3,H,W) uint8 (None when none could be read), their positions, and (position, reason) of the rest."""

    images: Tensor | None
    positions: Tensor
    corrupt: list[tuple[int, str]]


@dataclass(frozen=True)
class ImageSet(Dataset[tuple[int, Tensor | str]]):
    """Images in a fixed order: `names` are some of `source`'s, `labels` class indices, -1 where unknown.

    `transform` takes a PIL image to (3,H,W), uint8 or floats in [0,1]. Files always pass it; pictures in memory do
    unless they have the `size` (3,H,W) of the victim's input already, or there is no transform.
    """

    source: Listing | Memory
    names: list[str]
    labels: list[int]
    transform: Transform | None
    notes: tuple[str, ...] = ()
    size: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> tuple[int, Tensor | str]:
        """(position, (3,H,W) uint8), or (position, reason) for a file that cannot be decoded."""
        picture: Tensor | Image.Image
        if isinstance(self.source, Memory):
            picture = self.source.pictures[self.names[position]]
            if self.transform is None or tuple(picture.shape) == self.size:
                return position, picture
            picture = Image.fromarray(picture.permute(1, 2, 0).numpy())
        else:
            try:
                picture = decode(self.source.read(self.names[position]))
            except Exception as error:  # Pillow's decoders raise anything on broken bytes; it is named and counted
                return position, reason(error)
        assert self.transform is not None
        return position, as_levels(self.transform(picture))

    def read(self) -> Tensor:
        """All images (N,3,H,W) uint8. Raises UapgenError, with its name, for one that is broken or of another size."""
        images = list[Tensor]()
        for position, name in enumerate(self.names):
            _, image = self[position]
            if isinstance(image, str):
                raise UapgenError(f"{self.root / name} cannot be read as an image ({image}); remove or replace it")
            if images and image.shape != images[0].shape:
                raise UapgenError(
                    f"{self.root / name} and {self.names[0]} become {tuple(image.shape)} and {tuple(images[0].shape)}; "
                    "the transform must give one size (resize and crop)"
                )
            images.append(image)
        return torch.stack(images)

    def subset(self, positions: Sequence[int]) -> ImageSet:
        """The images at `positions`, in that order."""
        names, labels = [self.names[i] for i in positions], [self.labels[i] for i in positions]
        return dataclasses.replace(self, names=names, labels=labels)

    def spread(self, limit: int | None) -> ImageSet:
        """At most `limit` of the images, evenly spread, so that a tree of classes stays balanced."""
        return self.subset(spread(len(self), limit))

    def batches(
        self,
        batch_size: int,
        *,
        workers: int | None = None,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
        positions: Sequence[int] | None = None,
    ) -> DataLoader[Any]:
        """This rank's share of `positions` (default: all), every `world`-th from the `rank`-th on, as `Batch`es: no
        padding, nothing counted twice.
        """
        share = (range(len(self)) if positions is None else positions)[rank::world]
        workers = default_workers() if workers is None else workers
        return DataLoader(self, batch_size, sampler=share, num_workers=workers, collate_fn=_collate, pin_memory=pin)

    @property
    def root(self) -> Path:
        return self.source.root

    @property
    def list_sha256(self) -> str:
        """Hash of names and labels in order: two results with the same hash are about the same images."""
        pixels = [self.source.sha256] if isinstance(self.source, Memory) else []  # whose names are numbers
        return lines_sha256(
            [*pixels, *(f"{name}\t{label}" for name, label in zip(self.names, self.labels, strict=True))]
        )

    def describe(self) -> dict[str, Any]:
        """What a result says of the images; JSON."""
        return {
            "path": str(self.root),
            "images": len(self),
            "labelled": sum(label >= 0 for label in self.labels),
            "list_sha256": self.list_sha256,
        }

    def describe_source(self) -> dict[str, Any]:
        """What the card of a pattern that was made on these images says of them; JSON. The hash is of the whole folder,
        whatever part of it is here, so that an evaluation on another part finds it: `made_on`.
        """
        name = self.root.resolve().name
        return {"source": self.source.kind, "name": name, "n": len(self), "list_sha256": self.source.sha256}

    def made_on(self, described: Any) -> bool:
        """Whether these images are among the sources `described` by a card, or in them: sources nest."""
        if isinstance(described, dict):
            of_these = described.get("list_sha256") == self.source.sha256
            return of_these or any(self.made_on(part) for part in described.values())
        return isinstance(described, list) and any(self.made_on(part) for part in described)

    def check_corrupt(self, corrupt: Sequence[tuple[int, str]]) -> None:
        """Raises UapgenError when more than 1% of the set could not be read."""
        if len(corrupt) > MAX_CORRUPT * len(self):
            position, reason = corrupt[0]
            raise UapgenError(
                f"{len(corrupt)} of {len(self)} images in {self.root} cannot be read, more than {MAX_CORRUPT:.0%}; "
                f"the first is {self.names[position]} ({reason}); repair or remove them"
            )


def _collate(items: list[tuple[int, Tensor | str]]) -> Batch:
    good = [(position, image) for position, image in items if isinstance(image, Tensor)]
    corrupt = [(position, image) for position, image in items if isinstance(image, str)]
    images = torch.stack([image for _, image in good]) if good else None
    return Batch(images, torch.tensor([position for position, _ in good], dtype=torch.int64), corrupt)


def default_workers() -> int:
    """Decoding processes for each rank: none on one or two cores, where they would only compete with the victim."""
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return 0 if cores <= 2 else min(8, cores - 1)


def open_images(
    data: Any,
    victim: Victim | Transform | None = None,
    *,
    labels: Path | None = None,
    num_classes: int | None = None,
    limit: int | None = None,
) -> ImageSet:
    """The images that `data` names or holds, in a fixed order, for a `victim`, or for any `Victim.transform`.

    Names: a folder of images (sorted by name), a .tar, a folder of tars, webdataset's shards among them, a pattern such
    as photos/*/0*.jpg, or "foolbox", the 20 labelled ImageNet images inside that package. Files are resized and cropped
    as the victim's configuration says. In memory: a tensor (N,3,H,W), floats in [0,1] or uint8, an array (N,H,W,3) or
    (N,3,H,W), a pair (images, labels), a torch Dataset, a DataLoader. Those of the victim's input size are taken as
    they are, as are all without a `victim`; others are resized as files are.

    Labels of files, for `num_classes` classes (default: the victim's, or 1000), come from the first that applies: the
    CSV `labels` or `data`/labels.csv (header `file,label`, paths relative to `data`); in tars, NAME.cls beside
    NAME.jpg; folders with WordNet names when the victim has ImageNet's 1000 classes; folders with integer names; as
    many folders as classes, in alphabetical order. Else they are unknown, and a note says so. `limit` keeps that many
    images, evenly spread over the list, so that a tree of classes stays balanced.

    Raises UsageError for what is missing, holds no image or is of another type, and for labels that do not fit.
    """
    classes = num_classes or getattr(victim, "num_classes", None)
    if not isinstance(data, str | Path):
        if labels is not None:
            raise UsageError(
                f"labels {labels} are for files; give open_images((images, labels), ...) for images in memory"
            )
        images = gather(data, victim, limit=limit)
        if classes and (wrong := [label for label in images.labels if not UNKNOWN <= label < classes]):
            raise UsageError(
                f"label {wrong[0]} is no class of this victim; expected 0..{classes - 1}, or -1 where unknown"
            )
        return images
    images = gather(data, victim)
    assert isinstance(images.source, Listing)
    if str(data) == FOOLBOX and labels is None:
        found, notes = foolbox_labels(images.names, classes or IMAGENET_CLASSES)
    else:
        found, notes = find_labels(images.source, labels, classes or IMAGENET_CLASSES)
    labelled = dataclasses.replace(images, labels=found, notes=(*images.notes, *notes))
    return labelled.spread(limit)


def gather(
    data: Any,
    victim: Victim | Transform | None = None,
    *,
    limit: int | None = None,
    error: type[UapgenError] = UsageError,
) -> ImageSet:
    """`open_images` without a look for labels of files: images to craft on. An ImageSet is taken as it is.

    Raises `error` for files that are missing, UsageError for what is of another type.
    """
    if isinstance(victim, nn.Module | str):
        what = "load_victim(name)" if isinstance(victim, str) else "Victim(module, preprocessing=Preprocessing(...))"
        raise UsageError(f"a {type(victim).__name__} is no victim yet; give uapgen.{what}")
    if isinstance(data, ImageSet):
        return data.spread(limit)
    transform = getattr(victim, "transform", victim)
    if isinstance(data, str | Path):
        if transform is None:
            raise UsageError(f"files are resized for a victim; give open_images({str(data)!r}, victim)")
        listing = find_images(data, error)
        images = ImageSet(listing, listing.names, [UNKNOWN] * len(listing.names), transform, listing.notes)
    else:
        memory = in_memory(data, limit)
        shapes = {tuple(picture.shape) for picture in memory.pictures.values()}
        if transform is None and len(shapes) > 1:
            raise UsageError(f"images have {len(shapes)} sizes; give open_images(images, victim), which makes them one")
        size = getattr(victim, "input_size", None)
        images = ImageSet(memory, memory.names, memory.labels, transform, memory.notes, size)
    return images.spread(limit)
