"""One list: which image files a folder, a tar, a pattern of paths or foolbox's samples hold, and in which order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UapgenError, UsageError
from .decode import Archive, only_tars, read_archive

if TYPE_CHECKING:
    from .decode import Encoded

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
FOOLBOX = "foolbox"


@dataclass(frozen=True)
class Listing:
    """Image files on disk: `names` relative to `root`, sorted; `archive` where they lie inside tars.

    `notes` say what was left out.
    """

    root: Path
    names: list[str]
    archive: Archive | None = None
    notes: tuple[str, ...] = ()
    kind = "folder"  # in cards

    def read(self, name: str) -> Encoded:
        """Where the bytes of a picture are; of one in a tar, the bytes."""
        return self.archive.images[name].read() if self.archive else self.root / name

    def size(self, name: str) -> int:
        """How many bytes the file of a picture has."""
        return self.archive.images[name].size if self.archive else (self.root / name).stat().st_size

    @property
    def sha256(self) -> str:
        """Hash of all names: by it a card says which images were crafted on, and an evaluation finds them again."""
        return lines_sha256(self.names)


def lines_sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def find_images(data: str | Path, error: type[UapgenError] = UsageError) -> Listing:
    """The images of a folder, of a .tar, of a folder that holds .tar files and no image, or of what a pattern such as
    photos/*/0*.jpg matches (files, folders, tars; ** is any depth). "foolbox" is the samples inside that package.

    Hidden files and folders are left out. Links are followed, and no folder is entered twice. Reads no image.
    Raises `error` for what is missing or holds no image, UapgenError for a tar that cannot be read.
    """
    if str(data) == FOOLBOX:
        root = _foolbox_folder()
        return Listing(root, sorted(name for name in _walk(root).names if name.startswith("imagenet_")))
    root, pattern = _split(Path(data))
    if root.is_file() and not pattern and only_tars([root]):
        found = _Below([], [root], ())
    elif root.is_dir():
        found = _walk(root)
    else:
        what = "is a file" if root.exists() else "is not there"
        raise error(f"data {str(data)!r} {what}; expected a folder of images, a .tar, or {FOOLBOX!r}")
    names = sorted(name for name in found.names if _matches(name.split("/"), pattern))
    if names:
        return Listing(root, names, None, found.notes)
    tars = [tar for tar in found.tars if tar == root or _matches(tar.relative_to(root).parts, pattern)]
    archive = read_archive(root, only_tars(tars), EXTENSIONS)
    if not archive.images:
        raise error(f"{data} holds no image; expected files such as .jpg or .png, in it, its folders or its tars")
    return Listing(root, sorted(archive.images), archive, found.notes)


def is_pattern(data: str | Path) -> bool:
    """Whether `data` is a pattern of paths rather than the path of something that exists."""
    return any(sign in str(data) for sign in "*?[") and not Path(data).exists()


def _split(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that a pattern begins with, and the pattern's parts below it; none for a path that is no pattern."""
    if not is_pattern(path):
        return path, ()
    fixed = list(takewhile(lambda part: not is_pattern(part), path.parts))
    return Path(*fixed), path.parts[len(fixed) :]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file, or a folder above it, is meant by `pattern`."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


class _Below(NamedTuple):
    """What lies below a folder: names of images, tar files (compressed ones too), and notes on what was left out."""

    names: list[str]
    tars: list[Path]
    notes: tuple[str, ...]


def _walk(root: Path) -> _Below:
    """Folders first, then links to folders, by name: which of two ways into a folder is taken is the same everywhere,
    and never the link's where there is another.
    """
    names, tars, again, closed = list[str](), list[Path](), list[str](), list[str]()
    folders, links = [""], list[str]()
    seen = {_identity(folder) for folder in root.resolve().parents}
    while folders or links:
        folder = folders.pop() if folders else heappop(links)
        if (identity := _identity(root / folder)) in seen:
            again.append(folder)
            continue
        seen.add(identity)
        try:
            entries = [entry for entry in os.scandir(root / folder) if not entry.name.startswith(".")]
        except OSError as error:
            closed.append(f"{folder or root} ({error.strerror})")
            continue
        for entry in entries:
            name, link = f"{folder}/{entry.name}" if folder else entry.name, entry.is_symlink()
            if os.path.isdir(entry.path) if link else entry.is_dir():
                if link:
                    heappush(links, name)
                else:
                    folders.append(name)
            elif entry.is_file() if not link else not os.path.exists(entry.path) or os.path.isfile(entry.path):
                # A link to nothing is in the list, to be named when it is read.
                if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                    names.append(name)
                elif ".t" in entry.name.lower():
                    tars.append(root / name)
    notes = [f"links to folders that are listed already are left out: {_some(again)}"] if again else []
    notes += [f"folders that cannot be read are left out: {_some(closed)}"] if closed else []
    return _Below(names, sorted(tars), tuple(notes))


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def spread(n: int, limit: int | None) -> list[int]:
    """At most `limit` of the positions 0..n-1, evenly spread: position i*n // limit for i < limit."""
    if limit is None or limit >= n:
        return list(range(n))
    if limit < 1:
        raise UsageError(f"limit {limit} leaves no image; expected at least 1")
    return [i * n // limit for i in range(limit)]


def _foolbox_folder() -> Path:
    spec = find_spec("foolbox")
    if spec is None or not spec.submodule_search_locations:
        raise UapgenError("--data foolbox needs the foolbox package; pip install foolbox, or give a folder of images")
    return Path(spec.submodule_search_locations[0]) / "data"
