"""Which image files --data names: those of a folder, those inside tars, or foolbox's samples."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..errors import UapgenError, UsageError
from .tars import Archive, find_tars, read_archive

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
FOOLBOX = "foolbox"


class Found(NamedTuple):
    """A folder or tar, the names of the images below it, sorted, and what the tars hold where there are any."""

    root: Path
    names: list[str]
    archive: Archive | None = None


def find_images(data: str | Path) -> Found:
    """The images of a folder, of a .tar, or of a folder that holds .tar files and no image; hidden files are left out.
    Reads no image.

    Raises UsageError for a folder that is missing or holds no image, UapgenError for a tar that cannot be read.
    """
    root = _foolbox_folder() if str(data) == FOOLBOX else Path(data)
    tars = find_tars(root) if root.is_file() else []
    if not (root.is_dir() or tars):
        what = "is a file" if root.exists() else "is not there"
        raise UsageError(f"data {str(data)!r} {what}; expected a folder of images, a .tar, or {FOOLBOX!r}")
    files = (
        Path(folder, name).relative_to(root) for folder, _, held in os.walk(root, followlinks=True) for name in held
    )
    names = sorted(f.as_posix() for f in files if f.suffix.lower() in EXTENSIONS and not f.name.startswith("."))
    if str(data) == FOOLBOX:
        names = [name for name in names if name.startswith("imagenet_")]
    if names:
        return Found(root, names)
    archive = read_archive(root, tars or find_tars(root), EXTENSIONS)
    if not archive.images:
        raise UsageError(f"{root} holds no image; expected files such as .jpg or .png, in it, its folders or its tars")
    return Found(root, sorted(archive.images), archive)


def _foolbox_folder() -> Path:
    spec = find_spec("foolbox")
    if spec is None or not spec.submodule_search_locations:
        raise UapgenError("--data foolbox needs the foolbox package; pip install foolbox, or give a folder of images")
    return Path(spec.submodule_search_locations[0]) / "data"
