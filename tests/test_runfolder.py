"""A run folder's log has each line once, however often the run was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from uapgen.runfolder import RunFolder


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
