"""Labelled images from files: .npz, folders and tars, `path label` lists, LSUN's databases."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ..errors import UapgenError
from ..images.decode import centre_crop, read_picture
from ..images.labels import own_labels, read_list
from ..images.listing import find_images
from .data import LabelledImages

LSUN_CLASSES = ("bedroom", "conference_room", "dining_room", "kitchen", "living_room")  # of the published runs


def as_chw(images: np.ndarray, name: str) -> Tensor:
    """uint8 pixels (N,H,W), (N,H,W,1 or 3) or (N,3,H,W) as (N,3,H,W); grey is replicated.

    Raises UapgenError for another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UapgenError(f"{name}: images are {images.dtype} {images.shape}; expected uint8 (N,H,W[,3]) or (N,3,H,W)")
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.shape[3] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    return pixels.contiguous()


def npz(path: str | Path) -> LabelledImages:
    """`images` uint8 and `labels` (N,); or images as encoded bytes (JPEG, PNG), image i being
    data[offsets[i] : offsets[i + 1]].

    Classes are 0..max(labels). Raises UapgenError for a file that is missing, damaged or holds something else.
    """
    path = Path(path)
    try:
        with np.load(path) as file:
            held = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UapgenError(f"{path} cannot be read ({error}); expected an .npz file of images and labels") from error
    if "labels" not in held or not ("images" in held or {"data", "offsets"} <= held.keys()):
        raise UapgenError(f"{path} holds {', '.join(held)}; expected labels with images, or with data and offsets")
    labels = torch.from_numpy(held["labels"].astype(np.int64))
    if "images" in held:
        return _labelled(as_chw(held["images"], path.name), labels, path.stem)
    data, offsets = held["data"], held["offsets"]
    if len(offsets) != len(labels) + 1:
        raise UapgenError(f"{path}: {len(offsets)} offsets for {len(labels)} labels; expected one more than labels")

    def decode(i: int) -> Tensor:
        encoded = data[offsets[i] : offsets[i + 1]].tobytes()
        return pil_to_tensor(read_picture(encoded, f"{path.name} image {i}"))

    return _labelled(_stack(len(labels), decode, path.name), labels, path.stem)


def folder(path: str | Path, *, size: int) -> LabelledImages:
    """The images of a folder, of tars, or of a pattern of paths, with the labels that they say themselves (see
    `own_labels`); resized until they cover size x size, then centre-cropped.
    """
    listing, crop = find_images(path, UapgenError), centre_crop(size)

    def read(i: int) -> Tensor:
        name = listing.names[i]
        return crop(read_picture(listing.read(name), listing.root / name))

    name = listing.root.resolve().name
    return _labelled(_stack(len(listing.names), read, name), torch.tensor(own_labels(listing)), name)


def listed(path: str | Path, *, size: int, root: Path) -> LabelledImages:
    """A text file of `path label` lines, paths relative to `root`; images as those of a `folder`."""
    (names, labels), crop = read_list(Path(path)), centre_crop(size)
    images = _stack(len(names), lambda i: crop(read_picture(root / names[i], root / names[i])), Path(path).stem)
    return _labelled(images, torch.tensor(labels), Path(path).stem)


def lsun(
    root: str | Path,
    classes: tuple[str, ...] = LSUN_CLASSES,
    *,
    size: int = 64,
    per_class: int = 50_000,
    train: bool = True,
) -> LabelledImages:
    """The first `per_class` images of each of LSUN's databases `root`/CLASS_train_lmdb (or _val_lmdb), in key order,
    which is torchvision's. Needs the lmdb package.
    """
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise UapgenError("LSUN lies in LMDB databases; pip install lmdb") from error
    parts = []
    for name in classes:
        place = Path(root) / f"{name}_{'train' if train else 'val'}_lmdb"
        if not place.is_dir():
            raise UapgenError(f"{place} is not there; unpack LSUN's {name} there, or give its folder as root")
        with lmdb.open(str(place), readonly=True, lock=False, readahead=False) as database, database.begin() as reading:
            first = list(islice(reading.cursor().iternext(keys=False, values=True), per_class))
        parts.append(_stack(len(first), partial(_cropped, first, centre_crop(size), place.name), place.name))
    labels = torch.cat([torch.full((len(part),), k) for k, part in enumerate(parts)])
    return LabelledImages(torch.cat(parts), labels, len(classes), "lsun")


def _cropped(encoded: list[bytes], crop: Callable[[Image.Image], Tensor], name: str, i: int) -> Tensor:
    return crop(read_picture(encoded[i], f"{name} image {i}"))


def _labelled(images: Tensor, labels: Tensor, name: str) -> LabelledImages:
    return LabelledImages(images, labels, int(labels.max()) + 1 if len(labels) else 0, name)


def _stack(n: int, read: Callable[[int], Tensor], name: str) -> Tensor:
    """`read(i)` for i < n as one (n,3,H,W) uint8 tensor; Pillow decodes without the interpreter's lock."""
    if not n:
        raise UapgenError(f"{name} holds no image; expected at least one")
    first = read(0)
    images = torch.empty(n, *first.shape, dtype=torch.uint8)

    def fill(span: range) -> None:
        for i in span:
            image = read(i)
            if image.shape != first.shape:
                shapes = f"{tuple(image.shape)} and {tuple(first.shape)}"
                raise UapgenError(f"{name}: images {i} and 0 are {shapes}; expected one size")
            images[i] = image

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, [range(start, min(start + 64, n)) for start in range(0, n, 64)]))
    return images
