"""`uapgen compare` as its user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import ROOT, gratings
from uapgen.cli.compare import assign, command
from uapgen.errors import UsageError

VICTIM = """
import torch
from tests.conftest import TINY, tiny_net
from uapgen.victims import Victim

def build(seed=0):
    torch.manual_seed(seed)
    net = tiny_net(width=4).train()
    with torch.no_grad():
        net(torch.rand(64, 3, 32, 32))  # batch-norm statistics of their own
    return Victim(net, name="tiny", preprocessing=TINY, device="cpu", precision="fp32")

def other():
    return build(1)
"""
COMPARE = ["--victim", "compared_victim:build", "--data", "data", "--budget", "64", "--workers", "0", "--out", "run"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of two victims in it and 20 pictures in data/."""
    (tmp_path / "compared_victim.py").write_text(VICTIM)
    (tmp_path / "data").mkdir()
    for i, picture in enumerate(gratings(20, seed=5)[0]):
        Image.fromarray((picture * 255).byte().movedim(0, -1).numpy()).save(tmp_path / "data" / f"{i:02}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_the_shell_and_once_more(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ROOT
    paths = os.pathsep.join(map(str, (source, source / "tests", place)))
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "UAPGEN_CACHE": str(place / "cache")}
    words = [
        *COMPARE,
        "--transfer-victim",
        "compared_victim:other",
        "--methods",
        "noise,cosine-uap@gaussian",
        "--curve",
        "8",
    ]
    start = [sys.executable, "-m", "uapgen", "compare", *words, "--json", "-"]
    done = subprocess.run(start, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # stdout is JSON and nothing else
    assert result["command"].startswith("uapgen compare --victim compared_victim:build --data data")
    assert [row["method"] for row in result["transfer"]["rows"]] and len(result["cells"]) == 4
    assert "craft 2/2 cosine-uap@gaussian, seed 0, compared_victim:build: 64 image-gradients" in done.stderr
    assert "warning: n = 20 is below 1000" in done.stderr
    files = {"cells.jsonl", "curves.jsonl", "options.json", "results.json", "table.md"}
    files |= {"curves.png", "transfer.png", "patterns.png", "spectrum.png", "uaps", "craft"}
    assert {file.name for file in Path("run").iterdir()} == files
    monkeypatch.syspath_prepend(str(place))
    again = CliRunner().invoke(command, words)
    assert again.exit_code == 0, again.output
    assert again.stdout == Path("run/table.md").read_text()
    assert "0 of them to craft" in again.stderr
    assert "0 of them to evaluate" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "sgaa"], "did you mean 'sga'"),
        (["--methods", "noise,sga"], "give --train-data DIR"),
        (["--methods", "noise", "--seeds", "2..0"], "neither a seed nor FIRST..LAST"),
        (["--methods", "noise", "--eps", "0.04"], "did you mean 10?"),
        (["--methods", "noise", "--import", "x.npy"], "FILE:UNIT:LAYOUT"),
        (["--methods", "noise", "--data", "nowhere"], "'nowhere' is not there"),
        (["--methods", "noise", "--weights", "w.pt", "--transfer-victim", "no:such"], "whose"),
        (["--methods", "noise", "--arch", "timm/resnet18"], "none here does"),
    ],
)
def test_cheap_checks_come_before_the_victims(arguments: list[str], message: str, place: Path) -> None:
    result = CliRunner().invoke(command, [*COMPARE, "--victim", "no:victim", *arguments])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert not Path("run").exists()


def test_weights_belong_to_a_victim() -> None:
    one, two = "timm/resnet18", "timm/mobilenetv2_100:pad_type=same"
    assert assign("--weights", ["a=b.pt"], [one]) == {one: "a=b.pt"}
    assert assign("--weights", [f"{two}=b.pt", f"{one}=a.pt"], [one, two]) == {two: "b.pt", one: "a.pt"}
    with pytest.raises(UsageError, match=f"SPEC {one} or {two}"):
        assign("--weights", ["b.pt"], [one, two])
    with pytest.raises(UsageError, match="given twice"):
        assign("--weights", ["a.pt", "b.pt"], [one])
