"""Labelled data by name: digits (always there), torchvision's sets from local folders, or a path."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UapgenError, UsageError, did_you_mean
from ..gan.proxy_gan import cache_folder
from ..images.listing import is_pattern
from . import files
from .data import LabelledImages, first_classes, holdout, resized

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
DIGITS_TEST = 34  # a class: leaves 140 of the rarest digit


def load_data(
    spec: str,
    *,
    root: str | Path | None = None,
    train: bool = True,
    size: int | None = None,
    num_classes: int | None = None,
    download: bool = False,
) -> LabelledImages:
    """The training or test images that `spec` names, uint8 on the CPU.

    spec: digits, cifar10, cifar100, svhn, stl10, mnist, fashion-mnist, lsun; or the path of an .npz file, of a .txt
        list of `path label` lines, or of a folder or .tar with a folder for each class.
    root: where the set's files lie (for a list: what its paths are relative to); default ./data, else data in
        uapgen's cache. Nothing is downloaded unless `download`.
    size: pixels, resized; default the set's own, and 64 where images come in many sizes.
    num_classes: keeps the first so many classes.
    Raises UsageError for a name that is unknown and for paths with `train=False` (they name one part of the data),
    UapgenError for files that are missing or damaged.
    """
    if spec == "digits":
        data = digits(train=train)
    elif spec in TORCHVISION:
        data = torchvision_set(spec, root, train=train, download=download)
    elif spec == "lsun":
        data = files.lsun(_roots(root)[0], size=size or 64, train=train)
    else:
        data = _from_path(spec, root, train, size or 64)
    data = resized(data, size) if size else data
    return first_classes(data, num_classes) if num_classes else data


def digits(*, train: bool = True, size: int = 32) -> LabelledImages:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, resized: 34 of each class are the test part, the rest
    (140 to 149 each) the training part.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    grey = torch.from_numpy(bunch.images * (255 / 16)).round().byte()
    images = grey.unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    everything = LabelledImages(images, torch.from_numpy(bunch.target).long(), 10, "digits", flips=False)
    rest, held = holdout(resized(everything, size), DIGITS_TEST)
    return rest if train else held


def torchvision_set(
    name: str, root: str | Path | None = None, *, train: bool = True, download: bool = False
) -> LabelledImages:
    """One of `TORCHVISION` in torchvision's layout; the idx files of (Fashion-)MNIST may also lie in `root` itself.

    Raises UapgenError, saying where it looked, when the files are neither there nor to be downloaded.
    """
    roots = _roots(root)
    if name == "fashion-mnist" and root is None:
        roots.append(DEBIAN_FASHION)
    if name in IDX and (found := _find_idx(roots, train, IDX[name])):
        return _idx(*found, name)
    problems = []
    for place in roots[:1] if download else roots:  # a download goes to one place
        try:
            images, labels, classes = TORCHVISION[name](place, train, download)
        except (RuntimeError, OSError) as error:
            problems.append(f"{place}: {(str(error) or type(error).__name__).splitlines()[0].split('. You can')[0]}")
        else:
            return _labelled(images, labels, classes, name)
    doing = "could not be downloaded" if download else "is not at hand"
    raise UapgenError(f"{name} {doing} ({'; '.join(problems)}); give the folder of its files, or allow the download")


def _cifar(classes: int) -> Callable[[Path, bool, bool], tuple[Any, Any, int]]:
    def load(root: Path, train: bool, download: bool) -> tuple[Any, Any, int]:
        from torchvision.datasets import CIFAR10, CIFAR100

        held = (CIFAR10 if classes == 10 else CIFAR100)(str(root), train=train, download=download)
        return held.data, held.targets, classes

    return load


def _svhn(root: Path, train: bool, download: bool) -> tuple[Any, Any, int]:
    from torchvision.datasets import SVHN

    held = SVHN(str(root), split="train" if train else "test", download=download)
    return held.data, held.labels, 10


def _stl10(root: Path, train: bool, download: bool) -> tuple[Any, Any, int]:
    from torchvision.datasets import STL10

    held = STL10(str(root), split="train" if train else "test", download=download)
    return held.data, held.labels, 10


def _mnist(fashion: bool) -> Callable[[Path, bool, bool], tuple[Any, Any, int]]:
    def load(root: Path, train: bool, download: bool) -> tuple[Any, Any, int]:
        from torchvision.datasets import MNIST, FashionMNIST

        held = (FashionMNIST if fashion else MNIST)(str(root), train=train, download=download)
        return held.data.numpy(), held.targets, 10

    return load


TORCHVISION: dict[str, Callable[[Path, bool, bool], tuple[Any, Any, int]]] = {
    "cifar10": _cifar(10),
    "cifar100": _cifar(100),
    "svhn": _svhn,
    "stl10": _stl10,
    "mnist": _mnist(fashion=False),
    "fashion-mnist": _mnist(fashion=True),
}
IDX = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}
UNFLIPPABLE = ("mnist", "svhn")


def _labelled(images: np.ndarray, labels: Any, classes: int, name: str) -> LabelledImages:
    return LabelledImages(
        files.as_chw(images, name), torch.as_tensor(labels).long(), classes, name, flips=name not in UNFLIPPABLE
    )


def _roots(root: str | Path | None) -> list[Path]:
    return [Path(root)] if root is not None else [Path("data"), cache_folder() / "data"]


def _find_idx(roots: list[Path], train: bool, own: str) -> tuple[Path, Path] | None:
    part = "train" if train else "t10k"
    for root in roots:
        for folder in (root, root / "raw", root / own):
            for suffix in ("", ".gz"):
                pair = [folder / f"{part}-{kind}-ubyte{suffix}" for kind in ("images-idx3", "labels-idx1")]
                if all(file.is_file() for file in pair):
                    return pair[0], pair[1]
    return None


def _idx(images: Path, labels: Path, name: str) -> LabelledImages:
    return _labelled(_read_idx(images), _read_idx(labels), 10, name)


def _read_idx(path: Path) -> np.ndarray:
    """LeCun's format: two zero bytes, type 8 (uint8), number of dimensions, big-endian int32 sizes, bytes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if raw[:3] != b"\0\0\x08":
            raise ValueError("not an idx file of bytes")
        shape = np.frombuffer(raw, ">i4", raw[3], 4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy()
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise UapgenError(f"{path} cannot be read ({error}); expected an idx file of bytes, copy it again") from error


def _from_path(spec: str, root: str | Path | None, train: bool, size: int) -> LabelledImages:
    path = Path(spec)
    if not path.exists() and not is_pattern(spec):
        known = ["digits", *TORCHVISION, "lsun"]
        hint = did_you_mean(spec, known) or f"; expected {', '.join(known)}, an .npz or .txt file, a folder or a .tar"
        raise UsageError(f"data {spec!r} is neither a known name nor a path{hint}")
    if not train:
        raise UsageError(f"{spec} is a path, and a path is one part of the data; name the test part's own path")
    if path.is_dir() or path.suffix == ".tar" or is_pattern(spec):
        return files.folder(path, size=size)
    if path.suffix == ".npz":
        return files.npz(path)
    if path.suffix == ".txt":
        return files.listed(path, size=size, root=Path(root) if root is not None else path.parent)
    raise UsageError(f"{spec}: expected a folder, a .tar, an .npz file, or a .txt list of `path label` lines")
