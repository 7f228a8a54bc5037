"""The short form: `uapgen evaluate ... --max-fooling-rate`, whose exit code is the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from tests.cli.test_evaluate import VICTIM
from uapgen.cli.evaluate import command
from uapgen.evaluation.stored import load_results
from uapgen.gate import check_limit, gate
from uapgen.gate.policy import Check, Policy
from uapgen.perturbation import Perturbation


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """150 greys in data/, of which up.safetensors (+9 levels) takes nine across the victim's threshold."""
    (tmp_path / "brightness.py").write_text(VICTIM)
    (tmp_path / "data").mkdir()
    for i in range(150):
        Image.new("RGB", (4, 4), (i,) * 3).save(tmp_path / "data" / f"{i:03}.png")
    delta = torch.full((3, 4, 4), 9 / 255)
    uap = Perturbation.create(delta, eps=10 / 255, method={"name": "shift"}, data={"class": "none"})
    uap.save(tmp_path / "up.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    words = ["up.safetensors", "--victim", "brightness:build", "--data", "data", "--workers", "0", *arguments]
    return CliRunner().invoke(command, words)


@pytest.mark.parametrize(("limit", "code"), [("0.12", 0), ("0.06", 4), ("0.03", 1), ("1.2", 2)])
def test_the_exit_code_is_the_answer(place: Path, limit: str, code: int) -> None:
    """9 of 150: [3.2, 11.0]% by Wilson."""
    result = run("--max-fooling-rate", limit, "--json", "result.json")
    assert result.exit_code == code, result.output
    if code != 2:
        assert json.loads(Path("result.json").read_text())["complete"] is True  # written before the verdict
        assert "6.0% (9 of 150), [3.2, 11.0]%" in result.stderr
        assert check_limit(load_results("result.json"), float(limit)).exit_code == code


def test_stdout_stays_json(place: Path) -> None:
    result = run("--max-fooling-rate", "0.03", "--json", "-")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["rows"][0]["fooling_rate"]["count"] == 9


def test_two_victims_of_one_name_keep_their_images_apart(place: Path) -> None:
    assert run("--victim", "brightness:darker", "--json", "result.json").exit_code == 0
    found = gate(load_results("result.json"), Policy((Check("fooling_rate", victim="bright*", max=0.2),)))
    assert [verdict.state for verdict in found.verdicts] == ["passed", "passed"]
