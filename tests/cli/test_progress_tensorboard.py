"""--tensorboard: the log's numbers as scalars, with a stand-in for the writer where the package is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.test_craft import VICTIM
from uapgen.cli import cli
from uapgen.cli.progress import Scalars

CRAFT = ["craft", "--victim", "board_victim:build", "--method", "fff", "--budget", "64"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "board_victim.py").write_text(VICTIM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What a stand-in for torch's SummaryWriter is told."""
    seen: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            self.stage = Path(folder).name
            seen.append(("open", self.stage, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((self.stage, name, value, step))

        def close(self) -> None:
            seen.append(("close", self.stage))

    module = ModuleType("torch.utils.tensorboard")
    vars(module)["SummaryWriter"] = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return seen


def test_each_stage_is_a_run_of_its_own(written: list[tuple[Any, ...]], tmp_path: Path) -> None:
    scalars = Scalars(tmp_path)
    scalars("gan", 8, 16, {"loss": 1, "name": "x", "flag": True})
    scalars("gan", 16, 16, {"loss": 0.5})
    scalars("delta", 4, 8, {"loss": 2.0})
    scalars.close()
    assert written == [
        ("open", "gan", 8),
        ("gan", "loss", 1.0, 8),
        ("gan", "loss", 0.5, 16),
        ("close", "gan"),
        ("open", "delta", 4),
        ("delta", "loss", 2.0, 4),
        ("close", "delta"),
    ]


def test_craft_writes_what_its_log_holds(written: list[tuple[Any, ...]], place: Path) -> None:
    run = CliRunner().invoke(cli, [*CRAFT, "--tensorboard", "board", "-o", "u.safetensors"], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    log = [json.loads(line) for line in Path("u.safetensors.run/stats.jsonl").read_text().splitlines()]
    expected = [(line["stage"], "loss", line["loss"], line["image_gradients"]) for line in log]
    assert [entry for entry in written if entry[1] == "loss"] == expected != []
    assert written[-1][0] == "close"


def test_gan_train_writes_too(written: list[tuple[Any, ...]], place: Path) -> None:
    pytest.importorskip("sklearn")
    settings = ["width=4", "images=64", "batch=16", "latent_dim=8"]
    given = ["gan", "train", "--data", "digits", "--size", "16", *(f"--set={s}" for s in settings), "-o", "gan"]
    run = CliRunner().invoke(cli, [*given, "--tensorboard", "board", "--device", "cpu"], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    assert {entry[3] for entry in written if len(entry) == 4} == {16, 32, 48, 64}


def test_without_the_package_nothing_is_started(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = CliRunner().invoke(cli, [*CRAFT, "--tensorboard", "board", "-o", "u.safetensors"])
    assert "pip install 'uapgen[tensorboard]'" in str(run.exception)
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) in ([], ["__pycache__"])


def test_tensorboard_reads_it_back_after_an_interruption(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ((8, 16, 24), (16, 24, 32)):  # interrupted after 24, saved at 8
        scalars = Scalars(tmp_path)
        for step in steps:
            scalars("gan", step, 32, {"loss": step / 8 + len(steps) * (steps[0] > 8)})
        scalars.close()
    events = EventAccumulator(str(tmp_path / "gan")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(8, 1.0), (16, 5.0), (24, 6.0), (32, 7.0)]
