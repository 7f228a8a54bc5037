"""Which class an image shows, by folder or file, and what a class index is called."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ..errors import UapgenError, UsageError
from .listing import Listing

UNKNOWN = -1
ANY_CLASS = 1 << 31

Found = tuple[list[int], list[str]]  # a label for each name, and notes on how they were found


def find_labels(listing: Listing, table: Path | None, num_classes: int) -> Found:
    """Class indices in [0, num_classes) for the names of `listing`, -1 where unknown.

    An explicit `table` must fit, or UsageError; a labels.csv that lies in the root and does not fit is a note.
    """
    names, archive = listing.names, listing.archive
    if table is not None:
        return table_labels(table, names, num_classes)
    if (listing.root / "labels.csv").is_file():
        try:
            return table_labels(listing.root / "labels.csv", names, num_classes)
        except UsageError as error:
            return [UNKNOWN] * len(names), [f"labels unknown: {error}"]
    if archive and archive.classes:
        return class_file_labels(names, archive.classes, num_classes)
    return folder_labels(_in_folders(listing), num_classes)


def own_labels(listing: Listing) -> list[int]:
    """Labels of data that say themselves which classes there are: labels.csv in the root, .cls entries of tars, or a
    folder for each class, in numeric order where all names are numbers, else alphabetical.

    Raises UapgenError where an image has none.
    """
    names, archive, table = listing.names, listing.archive, listing.root / "labels.csv"
    if table.is_file():
        labels, given = table_labels(table, names, ANY_CLASS)[0], f"{table} has no line"
    elif archive and archive.classes:
        labels, given = class_file_labels(names, archive.classes, ANY_CLASS)[0], f"{listing.root} has no .cls number"
    else:
        return _class_folders(listing)
    if min(labels) < 0:
        raise UapgenError(f"{given} for {names[labels.index(UNKNOWN)]}; every image needs one")
    return labels


def _class_folders(listing: Listing) -> list[int]:
    placed = _in_folders(listing)
    folders = {name.split("/")[0] for name in placed if "/" in name}
    if len(folders) < 2 or not all("/" in name for name in placed):
        raise UsageError(f"{listing.root}: expected a folder for each class (found {len(folders)}), or a labels.csv")
    numeric = all(name.isdecimal() for name in folders)
    rank = {name: i for i, name in enumerate(sorted(folders, key=int if numeric else str))}
    return [rank[name.split("/")[0]] for name in placed]


def read_list(path: Path) -> tuple[list[str], list[int]]:
    """The paths and labels of a text file of `path label` lines, UTF-8 (the lists of iNaturalist and ImageNet-LT).

    Raises UapgenError for a file that is no such list.
    """
    names, labels = [], []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UapgenError(f"{path} cannot be read ({error}); expected lines `path label` in UTF-8") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = [*line.strip().rsplit(None, 1), ""][:2]
        if not label.isdecimal():
            raise UapgenError(f"{path} line {number}: {line!r}; expected `path label`, the label a number from 0")
        names.append(name)
        labels.append(int(label))
    return names, labels


def class_file_labels(names: Sequence[str], classes: Mapping[str, str], num_classes: int) -> Found:
    """Labels from .cls entries, as webdataset has them: an index, or a WordNet name for 1000 classes."""
    texts = [classes.get(name.rpartition(".")[0]) for name in names]
    found = [None if text is None else _index(text, num_classes) for text in texts]
    labels = [UNKNOWN if index is None else index for index in found]
    strange = next((text for text, index in zip(texts, found, strict=True) if text is not None and index is None), None)
    notes = []
    if UNKNOWN in labels:
        why = "they have no .cls entry" if strange is None else f".cls {strange!r} is no class of this victim"
        notes.append(
            f"labels unknown for {labels.count(UNKNOWN)} of {len(names)} images: {why} ({num_classes} classes)"
        )
    return labels, notes


def _in_folders(listing: Listing) -> list[str]:
    """FOLDER/IMAGE for each name, so that the first folder is the class's.

    A tar often has folders above those of the classes, so that the last one counts; a tar's own name counts only if it
    is a WordNet name: shard 00001 is not class 1.
    """
    if listing.archive is None:
        return listing.names
    placed = []
    for path in map(PurePosixPath, listing.names):
        own = path.parent.as_posix() in listing.archive.tops and path.parent.name not in wordnet_indices()
        placed.append(path.name if own or not path.parent.name else f"{path.parent.name}/{path.name}")
    return placed


def table_labels(table: Path, names: Sequence[str], num_classes: int) -> Found:
    """Labels from a CSV with the header `file,label`; a label is an index, or a WordNet name for 1000 classes."""
    given = _read_table(table, num_classes)
    labels = [given.get(name, UNKNOWN) for name in names]
    missing = labels.count(UNKNOWN)
    if missing == len(names):
        first = next(iter(given), None)
        raise UsageError(
            f"{table} names none of the {len(names)} images (first line {first!r}, first image {names[0]!r}); "
            "expected paths relative to the data folder"
        )
    notes = [f"{missing} of {len(names)} images have no line in {table}: label unknown"] if missing else []
    absent = len(given.keys() - set(names))
    return labels, notes + ([f"{table} names {absent} files that are not in the data folder"] if absent else [])


def _read_table(table: Path, num_classes: int) -> dict[str, int]:
    given: dict[str, int] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if not {"file", "label"} <= set(rows.fieldnames or []):
                raise UsageError(f"{table} starts with {rows.fieldnames}; expected the header file,label")
            for row in rows:
                name, label = Path(row["file"] or "").as_posix(), _index(row["label"] or "", num_classes)
                if label is None:
                    raise UsageError(
                        f"{table} line {rows.line_num}: label {row['label']!r} is not a class of this victim; "
                        f"expected an index in 0..{num_classes - 1}"
                    )
                if given.setdefault(name, label) != label:
                    raise UsageError(f"{table} line {rows.line_num}: {name!r} has two labels; keep one")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"labels {table} cannot be read ({error}); expected a CSV with the header file,label"
        ) from error
    return given


def _index(text: str, num_classes: int) -> int | None:
    text = text.strip()
    if re.fullmatch(r"\d+", text):
        return int(text) if int(text) < num_classes else None
    return wordnet_indices().get(text) if num_classes == IMAGENET_CLASSES else None


def folder_labels(names: Sequence[str], num_classes: int) -> Found:
    """Labels from the first folder of each name: WordNet names, integers (from 0, or all from 1), or as many folders as
    classes (sorted).
    """
    folders = sorted({name.split("/")[0] for name in names if "/" in name})
    if not folders:
        return [UNKNOWN] * len(names), ["labels unknown (no folders, no labels.csv): fooling rates only"]
    named = {folder: index for folder in folders if (index := _index(folder, num_classes)) is not None}
    notes = []
    if not named and len(folders) == num_classes:
        named = {folder: index for index, folder in enumerate(folders)}
        notes = [f"labels are the {num_classes} folders in alphabetical order"]
    elif all(map(str.isdecimal, folders)) and sorted(map(int, folders)) == list(range(1, num_classes + 1)):
        named = {folder: int(folder) - 1 for folder in folders}
        notes = [f"labels are the folders' numbers, which start at 1: folder {num_classes} is class {num_classes - 1}"]
    labels = [named.get(name.split("/")[0], UNKNOWN) if "/" in name else UNKNOWN for name in names]
    unknown = labels.count(UNKNOWN)
    if unknown:
        strange = next((folder for folder in folders if folder not in named), None)
        why = f"folder {strange!r} is no class of this victim" if strange else "they lie outside the class folders"
        notes.append(f"labels unknown for {unknown} of {len(names)} images: {why} ({num_classes} classes)")
    return labels, notes


def foolbox_labels(names: Sequence[str], num_classes: int) -> Found:
    """foolbox names its samples imagenet_POSITION_LABEL.jpg."""
    notes = [
        f"data are foolbox's {len(names)} sample images: rates are good to +-20 points, enough to see that things run"
    ]
    if num_classes != IMAGENET_CLASSES:
        return [UNKNOWN] * len(names), [
            *notes,
            f"labels unknown: the victim has {num_classes} classes, not ImageNet's 1000",
        ]
    return [int(name.rsplit("_", 1)[1].split(".")[0]) for name in names], notes


IMAGENET_CLASSES = 1000


@lru_cache(maxsize=1)
def _imagenet_names() -> list[str]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0] for index in range(IMAGENET_CLASSES)]


@lru_cache(maxsize=1)
def wordnet_indices() -> dict[str, int]:
    """ImageNet's WordNet names to class indices: {"n01440764": 0, ...}, from the table inside timm."""
    from timm.data import ImageNetInfo

    return {name: index for index, name in enumerate(ImageNetInfo().label_names())}


def class_name(index: int, num_classes: int) -> str:
    """The first ImageNet name of a class of a 1000-class victim, such as "soccer ball"; else the index itself."""
    return _imagenet_names()[index] if num_classes == IMAGENET_CLASSES else str(index)
