"""uapgen evaluate: what reaches stdout and files, what is refused before work starts, and torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from tests.conftest import ROOT
from uapgen.cli.evaluate import command
from uapgen.errors import UapgenError, UsageError
from uapgen.perturbation import Perturbation

VICTIM = '''
import torch
from torch import nn
from uapgen.victims import Preprocessing, Victim

def build(threshold=127.5):
    """Class 0 above the threshold (levels of 255), class 1 below."""
    linear = nn.Linear(48, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.full((48,), 1 / 48), torch.zeros(48)]))
        linear.bias.copy_(torch.tensor([0.0, threshold / 255]))
    plain = Preprocessing(input_size=(3, 4, 4), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
    module = nn.Sequential(nn.Flatten(), linear)
    return Victim(module, name="brightness", preprocessing=plain, device="cpu", precision="fp32")

def darker():
    return build(100.5)
'''


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """150 greys and one broken file in data/, up.safetensors (+9 levels), and the victims of module `brightness`."""
    (tmp_path / "brightness.py").write_text(VICTIM)
    (tmp_path / "data").mkdir()
    for i in range(150):
        Image.new("RGB", (4, 4), (i,) * 3).save(tmp_path / "data" / f"{i:03}.png")
    (tmp_path / "data" / "broken.png").write_bytes(b"no picture")
    delta = torch.full((3, 4, 4), 9 / 255)
    uap = Perturbation.create(delta, eps=10 / 255, method={"name": "shift"}, data={"class": "none"})
    uap.save(tmp_path / "up.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    words = ["up.safetensors", "--victim", "brightness:build", "--data", "data", "--workers", "0", *arguments]
    return CliRunner().invoke(command, words)


def test_torchrun_with_two_processes_counts_like_one(workplace: Path) -> None:
    alone = run("--json", "one.json")
    assert alone.exit_code == 0, alone.output
    words = "-m torch.distributed.run --standalone --nproc-per-node 2 -m uapgen evaluate up.safetensors"
    rest = "--victim brightness:build --data data --batch-size 7 --workers 0 --json -"
    source = ROOT
    env = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{workplace}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words.split(), *rest.split()], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    two, one = json.loads(done.stdout), json.loads(Path("one.json").read_text())  # stdout is JSON and nothing else
    assert "brightness" in done.stderr
    assert two["victims"][0]["environment"]["world_size"] == 2
    assert two["rows"] == one["rows"]
    assert two["noise_floor"] == one["noise_floor"]
    assert two["victims"][0]["data"] == one["victims"][0]["data"]
    assert one["rows"][0]["fooling_rate"]["count"] == 9
    assert [entry["file"] for entry in one["victims"][0]["data"]["corrupt"]] == ["broken.png"]


def test_table_on_stdout_and_files_beside(workplace: Path) -> None:
    result = run(
        "--victim", "brightness:darker", "--json", "out/result.json", "--predictions", "p.npz", "--limit", "149"
    )
    assert result.exit_code == 0, result.output
    assert "fooling rate [95% CI]" in result.stdout
    assert "victim brightness" in result.stderr
    found = json.loads(Path("out/result.json").read_text())
    assert found["complete"] is True
    assert [row["fooling_rate"]["count"] for row in found["rows"]] == [9, 9]
    arrays = np.load("p.npz")
    assert arrays["adv"].shape == (2, 1, 149)
    changed = arrays["clean"][0] != arrays["adv"][0, 0]
    assert arrays["name"][changed].tolist() == [f"{i:03}.png" for i in range(119, 128)]


def test_a_victim_that_fails_costs_only_itself(workplace: Path) -> None:
    result = run("--victim", "brightness:nothing", "--json", "result.json")
    assert isinstance(result.exception, UapgenError)
    found = json.loads(Path("result.json").read_text())
    assert found["complete"] is False
    assert len(found["rows"]) == 1


def test_explain_needs_nothing_else() -> None:
    result = CliRunner().invoke(command, ["--explain"])
    assert result.exit_code == 0
    assert "fooling rate" in result.stdout
    assert "noise floor" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "'nowhere' is not there"),
        (["--json", "data"], "is a folder"),
        (["--weights", "w.safetensors", "--victim", "brightness:darker"], "--weights belongs to one victim"),
        (["--labels", "none.csv"], "none.csv cannot be read"),
    ],
)
def test_refused(workplace: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_cheap_checks_come_before_the_victim(workplace: Path) -> None:
    result = CliRunner().invoke(command, ["none.safetensors", "--victim", "no:such", "--data", "data"])
    assert isinstance(result.exception, UapgenError)
    assert "none.safetensors is not there" in str(result.exception)


def test_several_patterns_on_several_victims_are_a_matrix(workplace: Path) -> None:
    (workplace / "dark.py").write_text("import brightness\n\ndef build():\n    return brightness.build(3.5)\n")
    down = Perturbation.create(
        torch.full((3, 4, 4), -5 / 255), eps=10 / 255, method={"name": "shift"}, data={"class": "none"}
    )
    down.save(workplace / "down.safetensors")
    words = ["up.safetensors", "down.safetensors", "--victim", "brightness:build", "--data", "data", "--workers", "0"]
    assert "transfer" not in CliRunner().invoke(command, words).stdout
    both = CliRunner().invoke(command, [*words, "--victim", "dark:build"])  # another of the same name
    assert both.exit_code == 0, both.output
    lines = [line.split() for line in both.stdout.splitlines()]
    at = next(i for i, line in enumerate(lines) if line[:2] == ["transfer,", "fooling"])
    assert lines[at][-2:] == ["brightness", "brightness"]
    assert lines[at + 1 : at + 3] == [["up.safetensors", "6.0", "2.7"], ["down.safetensors", "3.3", "3.3"]]
