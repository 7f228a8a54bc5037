"""Images inside tar files, webdataset's shards among them: listed once, then read where they lie, never unpacked.

An own index instead of timm's readers: ReaderImageInTar knows no .cls entries, leaves a pickle beside large archives
and labels shards by their names; ReaderWds is a stream, without the positions that sharding and resuming count by.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from ..errors import UapgenError

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
