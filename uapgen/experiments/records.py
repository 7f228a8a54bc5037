"""Finished work, one JSON line each: what a resumed run does not do again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..distributed import from_main, is_main
from ..errors import UapgenError


class Lines:
    """A file of JSON lines that a killed process may have left with half a line at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; half a line at the end is cut off. Raises UapgenError for any other damage."""
        if not self.path.is_file():
            return []
        held = self.path.read_bytes()
        whole = held[: held.rfind(b"\n") + 1]
        if len(whole) < len(held):
            with self.path.open("r+b") as stream:
                stream.truncate(len(whole))
        found = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise UapgenError(f"{self.path} line {number} is not JSON ({error}); delete that line") from error
        return found

    def append(self, record: dict[str, Any]) -> None:
        """One more line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as stream:
            stream.write(json.dumps(record) + "\n")


class SharedLines(Lines):
    """The same under torchrun, where all processes call `shared` and `append` alike: rank 0 reads and writes."""

    def shared(self) -> list[dict[str, Any]]:
        """What `read` gives on rank 0, on every rank."""
        return from_main(self.read)

    def append(self, record: dict[str, Any]) -> None:
        if is_main():
            super().append(record)
