"""Cells: do what is missing; a finished one, or one that failed, is a JSON line that no half-written line spoils."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from ..distributed import from_main, is_main, world
from ..errors import UapgenError
from .jobs import Send, in_processes

Record = dict[str, Any]
Key = tuple[Any, ...]
Task = TypeVar("Task")


class Journal(Protocol):
    """Where records are kept: `records.Lines`, or several of them."""

    def read(self) -> list[Record]: ...

    def append(self, record: Record) -> None: ...


def failed(record: Record) -> bool:
    return "error" in record


def describe_failure(error: Exception) -> Record:
    """What a failed cell's record says: `error`, one line, `type`, and `at` for errors that nobody foresaw."""
    text = " ".join(str(error).split())
    if isinstance(error, UapgenError):
        return {"error": text, "type": type(error).__name__}
    frame = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
    where = {"at": f"{frame.filename}:{frame.lineno}"} if frame else {}
    return {"error": f"{type(error).__name__}: {text}".removesuffix(": "), "type": type(error).__name__, **where}


@dataclass
class Cells:
    """What the work of an experiment does its cells with. `keys` are the names of the identity in a record.

    held: the finished ones; keep: takes every new record.
    """

    keys: tuple[str, ...]
    held: dict[Key, Record]
    keep: Send

    def key(self, record: Record) -> Key:
        return tuple(record.get(name) for name in self.keys)

    def record(self, identity: Record, work: Callable[[], Record]) -> Record:
        """The cell's record: the one that is held, or its identity with what `work` returns, kept. Raises what that
        raises.
        """
        key = self.key(identity)
        if key not in self.held:
            self.finish({**identity, **work()})
        return self.held[key]

    def finish(self, record: Record) -> None:
        """Keeps the record of a finished cell."""
        self.held[self.key(record)] = record
        self.keep(record)

    def fail(self, identity: Record, error: Exception) -> None:
        """Keeps why a cell failed.

        Under torchrun that holds for UapgenError alone, which all processes raise alike, and another `error` is raised
        again: after an error of one of them the others would wait for it without end.
        """
        if world() > 1 and not isinstance(error, UapgenError):
            raise error
        self.keep({**identity, **describe_failure(error)})

    def attempt(self, identity: Record, work: Callable[[], Record]) -> Record | None:
        """As `record`, and None for a cell that fails."""
        with self.failing(identity):
            return self.record(identity, work)
        return None

    @contextmanager
    def failing(self, identity: Record) -> Iterator[None]:
        """Keeps what is raised inside as the failure of that cell, and goes on behind the block."""
        try:
            yield
        except Exception as error:
            self.fail(identity, error)


class Experiment:
    """Cells in a journal, done by this call or an earlier one.

    headline: a record, finished or failed, in one line without its error. total: cells in all, for the progress that
    `say` is told.
    Reading the journal now repairs half a line that a killed process left at its end.
    """

    def __init__(
        self,
        journal: Journal,
        keys: tuple[str, ...],
        headline: Callable[[Record], str],
        *,
        total: int,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.journal, self.headline, self.total, self.say = journal, headline, total, say
        self.started = time.monotonic()
        self.failures: list[str] = []
        self.cells = Cells(keys, {}, self._keep)
        for record in journal.read():
            if not failed(record):
                self.cells.held[self.cells.key(record)] = record
        self._number = len(self.cells.held)

    def missing(self, identity: Callable[[Task], Record], tasks: Sequence[Task]) -> list[Task]:
        """The tasks whose cell is not finished."""
        return [task for task in tasks if self.cells.key(identity(task)) not in self.cells.held]

    def run(self, work: Callable[[Task, Cells], object], tasks: Sequence[Task], jobs: int = 1) -> None:
        """Calls `work(task, cells)` for every task, `jobs` processes at a time: see `in_processes`.

        No failure of a cell ends it; `check` tells of them. What is raised outside of cells does, and an interruption.
        """
        held = dict(self.cells.held)
        for task, code in in_processes(partial(_work, work, self.cells.keys, held), tasks, self._keep, jobs):
            self.failures.append(f"{task}: its process died (exit code {code})")
            self.say(f"failed: {self.failures[-1]}")

    def records(self) -> list[Record]:
        """The last record of each cell, finished ones first, each in the order in which they came."""
        last: dict[Key, Record] = {}
        broken: dict[Key, Record] = {}
        for record in self.journal.read():
            (broken if failed(record) else last)[self.cells.key(record)] = record
        return [*last.values(), *(record for key, record in broken.items() if key not in last)]

    def check(self) -> None:
        """Raises UapgenError when cells of this call failed, so that a command that has done all else ends with 3."""
        if self.failures:
            raise UapgenError(
                f"{len(self.failures)} cells failed, the first is {self.failures[0]}; the same command tries them again"
            )

    def _keep(self, record: Record) -> None:
        self.journal.append(record)
        self._number += 1
        text = self.headline(record)
        if failed(record):
            self.failures.append(f"{text}: {record['error']}")
            text = f"failed: {self.failures[-1]}"
        else:
            self.cells.held[self.cells.key(record)] = record
        passed = tqdm.format_interval(time.monotonic() - self.started)
        self.say(f"{self._number}/{self.total} {text} ({passed} so far)")


def _work(
    work: Callable[[Any, Cells], object], keys: tuple[str, ...], held: dict[Key, Record], task: Any, send: Send
) -> None:
    """Of a worker process, or of this one; what is finished here is known to the tasks that follow."""
    work(task, Cells(keys, held, send))


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
