"""`torchrun -m uapgen craft` and compare: what is written, what is refused, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from PIL import Image

from tests.conftest import ROOT, gratings, small_victim
from uapgen.attacks import craft
from uapgen.cli.craft import command
from uapgen.compare import compare, figures
from uapgen.errors import UsageError
from uapgen.perturbation import Perturbation
from uapgen.proxies import parse_source
from uapgen.schema import to_json

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CRAFT = [
    "-m",
    "uapgen",
    "craft",
    "--victim",
    "tests.conftest:small_victim",
    "--method",
    "cosine-uap",
    "--proxy",
    "gaussian",
]
CRAFT += ["--seed", "3", "--budget", "1440", "-o", "a.safetensors"]
METHODS = "noise,fff,cosine-uap@gaussian+batch=5"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, tmp_path))))
    return tmp_path


def test_a_process_is_killed_and_the_same_command_goes_on(place: Path) -> None:
    process = subprocess.Popen([*TORCHRUN, *CRAFT], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (place / "a.safetensors.run" / "cosine.safetensors").exists():  # the first of three saves
        assert process.poll() is None
        time.sleep(0.002)
    workers = children.read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    assert process.wait(timeout=300) != 0
    assert not (place / "a.safetensors").exists()
    done = subprocess.run([*TORCHRUN, *CRAFT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.safetensors\n"
    assert done.stderr.count("1440 image-gradients") == done.stderr.count("victim small") == 1
    two = Perturbation.load("a.safetensors")
    assert two.card["environment"]["processes"] == 2
    assert two.card["cost"]["image_gradients"] == 1440
    assert not list(place.rglob("*.tmp"))
    lines = (place / "a.safetensors.run" / "stats.jsonl").read_text().splitlines()
    assert len(lines) == 1440 // 32
    one = craft(small_victim(), method="cosine-uap", source=parse_source("gaussian", (32, 32)), seed=3, budget=1440)
    assert (one.delta.sign() == two.delta.sign()).float().mean() > 0.999


@pytest.mark.parametrize("method", ["fff", "sv-uap"])
def test_what_cannot_share_is_refused_before_the_victim(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(command, ["--victim", "no:victim", "--method", method])
    assert isinstance(result.exception, UsageError)
    assert f"{method} cannot share its work" in str(result.exception)


def run(folder: Path, out: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"budget": 40, "curve": 4, "batch_size": 3, "workers": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda *args: None)  # takes seconds
        return to_json(compare({"small": small_victim()}, METHODS, folder / "data", out, **options))


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(run(Path(folder), Path(folder) / "two"), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_compare_like_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i, picture in enumerate(gratings(10, seed=5)[0]):
        Image.fromarray((picture * 255).byte().movedim(0, -1).numpy()).save(tmp_path / "data" / f"{i:02}.png")
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first == second
    one = run(tmp_path, tmp_path / "one")
    assert [row["method"] for row in first["rows"]] == [row["method"] for row in one["rows"]]
    for mine, theirs in zip(one["cells"], first["cells"], strict=True):
        assert mine["fooling_rate"] == theirs["fooling_rate"]
        assert mine["image_gradients"] == theirs["image_gradients"]
    assert one["curves"] == first["curves"]
    assert len((tmp_path / "two" / "cells.jsonl").read_text().splitlines()) == 3
    assert {file.name for file in (tmp_path / "two").iterdir()} == {file.name for file in (tmp_path / "one").iterdir()}
