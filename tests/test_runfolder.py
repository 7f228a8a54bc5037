"""A run folder's log has each line once, however often the run was interrupted; one process at a time works in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from uapgen.errors import UapgenError, UsageError
from uapgen.runfolder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from uapgen.lock import lock  # what RunFolder takes, without the seconds that torch takes
held = lock(Path(sys.argv[1]))
Path(sys.argv[1], "options.json").write_text('{"a": 1}')
print("held", flush=True)
if sys.argv[2] == "kill":
    import os, signal
    if os.fork() == 0:
        os.close(1)
        time.sleep(5)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""


@contextmanager
def another_process(folder: Path, then: str = "wait") -> Iterator[subprocess.Popen]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), then], stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def lines(folder: Path) -> list[int]:
    return [json.loads(line)["n"] for line in (folder / "stats.jsonl").read_text().splitlines()]


def test_resuming_keeps_the_lines_of_stages_that_are_done(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    for n, stage in enumerate(("first", "second")):
        run.log(n=n)
        run.save(stage, {"x": torch.zeros(1)}, {})
    run.log(n=2)  # after the last save: will be done again
    again = RunFolder(tmp_path, {})
    again.load("first")
    assert lines(tmp_path) == [0, 1]
    again.load("second")
    again.log(n=2)
    assert lines(tmp_path) == [0, 1, 2]


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    with another_process(tmp_path) as other:
        with pytest.raises(UapgenError, match=rf"in use by process {other.pid}; wait") as refused:
            RunFolder(tmp_path, {"a": 2}, restart=True)  # and does not empty it
        assert not isinstance(refused.value, UsageError)
        assert (tmp_path / "options.json").exists()
    assert RunFolder(tmp_path, {"a": 1})._lock is not None


def test_a_killed_process_leaves_no_lock_though_its_workers_live_on(tmp_path: Path) -> None:
    with another_process(tmp_path, "kill") as other:
        other.wait()
        RunFolder(tmp_path, {"a": 1})


def test_restart_empties_the_folder_and_keeps_the_lock(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    run = RunFolder(tmp_path, {"a": 1})
    again = RunFolder(tmp_path, {"a": 2}, restart=True)  # the same process
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "options.json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path), "wait"], capture_output=True, text=True, env=env)
    assert f"in use by process {os.getpid()}" in done.stderr
    del run, again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["options.json"]


def test_another_run_is_told_by_the_option_inside_an_option(tmp_path: Path) -> None:
    RunFolder(tmp_path, {"params": {"lr": 0.1, "pool": 3}, "seed": 0})
    RunFolder(tmp_path, {"seed": 0, "params": {"pool": 3, "lr": 0.1}})
    for options, words in (
        ({"params": {"lr": 0.2, "pool": 3}, "seed": 0}, r"\(params.lr = 0.1 there, 0.2 now\)"),
        ({"params": {"lr": 0.1}, "seed": 0}, r"\(params.pool = 3 there, None now\)"),
        ({"params": 3, "seed": 0}, r"\(params = {'lr': 0.1, 'pool': 3} there, 3 now\)"),
    ):
        with pytest.raises(UsageError, match=words):
            RunFolder(tmp_path, options)
