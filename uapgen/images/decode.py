"""One decoder: bytes of a file or of a tar's entry -> 8-bit RGB.

Tars, webdataset's shards among them, are listed once and read where they lie, never unpacked. An own index instead of
timm's readers: ReaderImageInTar knows no .cls entries, leaves a pickle beside large archives and labels shards by their
names; ReaderWds is a stream, without the positions that sharding and resuming count by.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

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
        pixels: Tensor = pil_to_tensor(ImageOps.fit(image, (w, h), Image.Resampling.BILINEAR))
        return pixels

    return transform


def _high_byte(grey: np.ndarray) -> np.ndarray:
    if grey.max(initial=0) > DEEPEST:
        raise ValueError(f"its pixels go up to {grey.max()}, beyond 16 bits; save it with 8 or 16 bits")
    return (grey.clip(0, DEEPEST) // 256).astype(np.uint8)


BLOCK = 512
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Member(NamedTuple):
    """`size` bytes at `offset` of the file `tar`."""

    tar: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.tar.open("rb") as stream:  # every time: processes that decode share no position in a file
            stream.seek(self.offset)
            return stream.read(self.size)


@dataclass(frozen=True)
class Archive:
    """What some tars hold: `images` by name, and `classes`, the texts of .cls entries by their image's name without
    suffix. Of several tars, and of tars inside a tar, names begin with the tar's own: one of `tops`.
    """

    images: dict[str, Member] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    tops: set[str] = field(default_factory=set)


def only_tars(files: Sequence[Path]) -> list[Path]:
    """Those of `files` that are .tar files. Raises UapgenError if one is compressed."""
    for file in files:
        if file.name.lower().endswith(COMPRESSED):
            raise UapgenError(f"{file} is compressed: its images cannot be read one by one; decompress it to a .tar")
    return [file for file in files if file.suffix.lower() == ".tar"]


def read_archive(root: Path, tars: list[Path], suffixes: Collection[str]) -> Archive:
    """The entries of `tars` (`root` itself, or files below it) that end in `suffixes`; hidden ones are left out.

    Raises UapgenError for a tar that is damaged or cut off.
    """
    stamps = tuple((tar, tar.stat().st_size, tar.stat().st_mtime_ns) for tar in tars)
    return _indexed(root, stamps, frozenset(suffixes))


@lru_cache(maxsize=4)  # a command asks once to check its arguments and once for each victim
def _indexed(root: Path, stamps: tuple[tuple[Path, int, int], ...], suffixes: frozenset[str]) -> Archive:
    archive = Archive()
    for tar, _, _ in stamps:
        top = "" if tar == root else tar.relative_to(root).with_suffix("").as_posix()
        try:
            with tar.open("rb") as stream:
                _scan(tar, stream, 0, top, archive, suffixes)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise UapgenError(f"{tar} cannot be read as a tar ({error}); make or fetch it again") from error
    return archive


def _scan(tar: Path, stream: IO[bytes], start: int, top: str, archive: Archive, suffixes: frozenset[str]) -> None:
    """Adds what the tar in `stream` holds, which begins at byte `start` of the file `tar`."""
    archive.tops.add(top)
    with tarfile.open(fileobj=stream, mode="r:") as held:
        while (entry := held.next()) is not None:
            held.members.clear()  # type: ignore[attr-defined]  # it would keep a kilobyte for every image
            path = PurePosixPath(top, *(part for part in PurePosixPath(entry.name).parts if part not in ("/", "..")))
            suffix, offset = path.suffix.lower(), start + entry.offset_data
            if not entry.isreg() or any(part.startswith(".") for part in path.parts):
                continue
            if suffix in suffixes:
                archive.images[path.as_posix()] = Member(tar, offset, entry.size)
            elif suffix in (".cls", ".tar"):
                inside = cast(IO[bytes], held.extractfile(entry))  # None only for what is no regular file
                stem = path.with_suffix("").as_posix()
                if suffix == ".tar":
                    _scan(tar, inside, offset, stem, archive, suffixes)
                else:
                    archive.classes[stem] = inside.read(64).decode(errors="replace").strip()
        # tarfile takes whatever it cannot read for the end.
        stream.seek(held.offset)
        if stream.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"it is damaged or cut off at byte {start + held.offset}")
