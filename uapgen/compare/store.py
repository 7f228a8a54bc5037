"""The folder of a comparison: what it is about, perturbations, finished cells line by line, and clocks."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..distributed import is_main
from ..errors import UsageError
from ..experiments.cells import SharedLines
from ..lock import Lock, lock
from ..runfolder import another, read_options, write_options
from ..runtime import atomic_write

LONGEST = 120  # of a part of a file's name; file systems take 255
ADVICE = "methods, seeds and victims can be added to it, everything else needs another --out"
FIXED = ("eps", "norm", "budget", "data", "train_data")


class Store:
    """`path`/options.json, uaps/, craft/, cells.jsonl and curves.jsonl. `path` may hold this comparison already."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.cells = SharedLines(self.path / "cells.jsonl")
        self.curves = SharedLines(self.path / "curves.jsonl")
        self._lock: Lock | None = None

    def uap(self, key: str) -> Path:
        return self.path / "uaps" / f"{key}.safetensors"

    def craft(self, key: str) -> Path:
        return self.path / "craft" / key

    def settle(self, options: dict[str, Any], victims: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Joins the comparison in the folder, or starts it; the options with all victims so far, in order.

        Methods, seeds and victims may be added. Raises UsageError, naming the first difference, for other images,
        another budget, and victims that are no longer what they were: such cells do not belong into one table; and
        UapgenError while another process works in the folder, which is this one's until `close`.
        """
        self._lock = lock(self.path)
        options = json.loads(json.dumps({**options, "victims": victims}))
        found = read_options(self.path, "use another --out")
        held = found or options
        if "victims" not in held or (found is None and self.cells.path.exists()):
            raise UsageError(f"{self.path} holds something else than a comparison; give another --out")
        for key in FIXED:
            given, there = options[key], held.get(key)
            optional = key == "train_data" and None in (given, there)
            if not optional and _identity(given) != _identity(there):
                raise another(self.path, "comparison", key.replace("_", "-"), _short(there), _short(given), ADVICE)
        for name, victim in options["victims"].items():
            there = held["victims"].get(name, victim)
            if differing := [key for key in victim if victim[key] != there.get(key)]:
                what, (before, now) = differing[0], (repr(each.get(differing[0])) for each in (there, victim))
                raise another(self.path, "comparison", f"{what} of {name}", before, now, ADVICE)
        merged = {
            **held,
            "train_data": held["train_data"] or options["train_data"],
            "victims": {**held["victims"], **options["victims"]},
        }
        if merged != found:
            write_options(self.path, merged, in_order=True)
        return merged

    def close(self) -> None:
        """Lets other processes work in the folder."""
        self._lock = None


def _identity(value: Any) -> Any:
    """Folders are compared by what they hold; the path is for people."""
    return {k: v for k, v in value.items() if k != "path"} if isinstance(value, dict) else value


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value.get('path')} ({value.get('images')} images, {str(value.get('sha256'))[:12]})"
    return repr(value)


class Clock:
    """Wall seconds of a work that may be interrupted, kept in `file` every `every` seconds."""

    def __init__(self, file: Path, every: float = 5.0) -> None:
        self.file, self.every = file, every
        self._held = float(json.loads(file.read_text())["seconds"]) if file.is_file() else 0.0
        self._started = self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._held + time.monotonic() - self._started

    def tick(self, now: bool = False) -> None:
        if is_main() and (now or time.monotonic() - self._written >= self.every):
            with atomic_write(self.file) as temporary:
                temporary.write_text(json.dumps({"seconds": round(self.seconds, 3)}) + "\n")
            self._written = time.monotonic()

    @staticmethod
    def read(file: Path) -> float | None:
        return float(json.loads(file.read_text())["seconds"]) if file.is_file() else None


def file_name(*parts: object) -> str:
    """One file name for `parts`, different for different parts: `embedded~efficientnet_lite0__sga@jigsaw__0`."""
    return "__".join(_slug(str(part)) for part in parts)


def _slug(text: str) -> str:
    safe = quote(text, safe="/@+=,").replace("~", "%7E").replace("/", "~")
    return safe if len(safe) <= LONGEST else f"{safe[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def describe_files(path: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Which images a comparison is about: names of files and their bytes; `path` is what the user wrote."""
    entries = (f"{name}\t{size}" for name, size in sizes.items())
    digest = hashlib.sha256("\n".join(entries).encode(errors="surrogateescape")).hexdigest()
    return {"path": path, "images": len(sizes), "sha256": digest}
