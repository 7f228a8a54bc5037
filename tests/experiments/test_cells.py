"""The engine of experiments: what is missing is done, failures are records, nothing is lost and nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest

from uapgen.errors import UapgenError, UsageError
from uapgen.experiments.cells import Cells, Experiment, Lines, Record, describe_failure
from uapgen.experiments.jobs import PerProcess, in_processes

KEYS = ("n", "part")
SQUARES = [{"n": n, "part": "square", "value": n * n} for n in range(6)]


def square(n: int) -> Record:
    return {"value": n * n}


def work(n: int, cells: Cells, broken: tuple[int, ...] = (), error: Exception | None = None) -> None:
    """A cell for each number; of `broken` ones it raises."""

    def make() -> Record:
        if n in broken:
            raise error or ZeroDivisionError("division\n by zero")
        return square(n)

    cells.attempt({"n": n, "part": "square"}, make)


def killed(n: int, cells: Cells, by: int) -> None:
    """The process that does number `by` is killed."""
    if n == by:
        os.kill(os.getpid(), signal.SIGKILL)
    work(n, cells)


def experiment(folder: Path, say: Callable[[str], None] = lambda text: None) -> Experiment:
    return Experiment(Lines(folder / "cells.jsonl"), KEYS, lambda r: f"number {r['n']}", total=6, say=say)


def written(folder: Path) -> list[Record]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_cell_is_a_line_and_two_processes_equal_one(tmp_path: Path, jobs: int) -> None:
    told: list[str] = []
    done = experiment(tmp_path, told.append)
    done.run(work, range(6), jobs)
    assert sorted(written(tmp_path), key=lambda line: line["n"]) == SQUARES
    done.check()
    assert [text.split()[0] for text in told] == [f"{n}/6" for n in range(1, 7)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_cell_says_why_and_leaves_the_others(tmp_path: Path, jobs: int) -> None:
    done = experiment(tmp_path)
    done.run(partial(work, broken=(1, 4)), range(6), jobs)
    good = [line for line in written(tmp_path) if "error" not in line]
    assert sorted(good, key=lambda line: line["n"]) == [SQUARES[n] for n in (0, 2, 3, 5)]
    bad = [line for line in written(tmp_path) if "error" in line]
    assert {line["n"] for line in bad} == {1, 4}
    for line in bad:
        assert line["error"] == "ZeroDivisionError: division by zero" and line["type"] == "ZeroDivisionError"
        assert line["part"] == "square" and "test_cells.py:" in line["at"]
    with pytest.raises(UapgenError, match=r"2 cells failed, the first is number \d: ZeroDivisionError") as caught:
        done.check()
    assert caught.value.exit_code == 3

    again = experiment(tmp_path)  # the same call tries them again, and nothing else
    again.run(work, again.missing(lambda n: {"n": n, "part": "square"}, range(6)), jobs)
    again.check()
    assert len(written(tmp_path)) == 8
    assert sorted(again.records(), key=lambda line: line["n"]) == SQUARES


def test_an_error_that_was_foreseen_is_its_own_sentence() -> None:
    assert describe_failure(UsageError("class 3 has\nno image")) == {
        "error": "class 3 has no image",
        "type": "UsageError",
    }
    assert describe_failure(KeyError())["error"] == "KeyError"


def test_an_interruption_ends_the_run_and_the_next_call_goes_on(tmp_path: Path) -> None:
    def until(n: int, cells: Cells) -> None:
        if n == 3:
            raise KeyboardInterrupt
        work(n, cells)

    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path).run(until, range(6))
    assert written(tmp_path) == SQUARES[:3]
    calls: list[int] = []

    def counted(n: int, cells: Cells) -> None:
        cells.attempt({"n": n, "part": "square"}, lambda: (calls.append(n), square(n))[1])

    experiment(tmp_path).run(counted, range(6))
    assert (calls, written(tmp_path)) == ([3, 4, 5], SQUARES)


def test_half_a_line_at_the_end_is_cut_off_and_done_again(tmp_path: Path) -> None:
    experiment(tmp_path).run(work, range(6))
    file = tmp_path / "cells.jsonl"
    whole = file.read_bytes()
    for cut in (1, 5, 20):
        file.write_bytes(whole[:-cut])
        experiment(tmp_path).run(work, range(6))
        assert file.read_bytes() == whole


def test_damage_elsewhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "cells.jsonl").write_text('{"n": 0}\nnonsense\n{"n": 1}\n')
    with pytest.raises(UapgenError, match="line 2 is not JSON"):
        experiment(tmp_path)


def test_a_killed_process_costs_its_task_alone(tmp_path: Path) -> None:
    done = experiment(tmp_path)
    done.run(partial(killed, by=2), range(6), jobs=2)
    assert {line["n"] for line in written(tmp_path)} == {0, 1, 3, 4, 5}
    with pytest.raises(UapgenError, match=r"1 cells failed, the first is 2: its process died \(exit code -9\)"):
        done.check()
    again = experiment(tmp_path)
    again.run(work, range(6))
    assert sorted(written(tmp_path), key=lambda line: line["n"]) == SQUARES


def test_a_step_inside_a_cell_fails_the_whole_and_keeps_what_was_finished(tmp_path: Path) -> None:
    def steps(n: int, cells: Cells) -> None:
        with cells.failing({"n": n, "part": "whole"}):
            cells.record({"n": n, "part": "first"}, lambda: {"value": 1})
            cells.record({"n": n, "part": "second"}, lambda: square(1 // n))

    done = experiment(tmp_path)
    done.run(steps, [0])
    assert [(line["part"], line.get("type")) for line in written(tmp_path)] == [
        ("first", None),
        ("whole", "ZeroDivisionError"),
    ]


@dataclass
class Loaded(PerProcess):
    """Something that takes long to load: once in every process."""

    folder: Path

    @cached_property
    def data(self) -> int:
        (self.folder / f"loaded-{os.getpid()}-{time.monotonic_ns()}").touch()
        return 10

    def add(self, n: int, send: Callable[[Any], None]) -> None:
        send(self.data + n)


def test_what_a_process_caches_serves_all_of_its_tasks(tmp_path: Path) -> None:
    held, found = Loaded(tmp_path), []
    assert held.data == 10
    assert in_processes(held.add, [1, 2, 3, 4, 5], found.append, 2) == []
    assert sorted(found) == [11, 12, 13, 14, 15]
    processes = [file.name.split("-")[1] for file in tmp_path.iterdir()]
    assert len(processes) == len(set(processes)) <= 3  # this one and two others, each once


def ends(n: int, send: Callable[[Any], None]) -> None:
    if n == 1:
        raise UsageError("no such data")
    send(n)


def test_what_is_raised_outside_of_cells_ends_all() -> None:
    for jobs in (1, 2):
        with pytest.raises(UsageError, match="no such data"):
            in_processes(ends, [0, 1, 2, 3], lambda value: None, jobs)
