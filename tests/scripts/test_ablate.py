"""scripts/ablate.py: every arm is a spec that compare takes, and a run is a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from torchvision.utils import save_image

from scripts import ablate
from tests.conftest import gratings
from uapgen.compare import figures, parse_method
from uapgen.victims import Victim


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_victim: Victim) -> Path:
    """Folders of pictures and a tiny victim; the pictures of a comparison are not drawn."""
    for name in ("eval", "train"):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(gratings(8, seed=len(name))[0]):
            save_image(picture, tmp_path / name / f"{i}.png")
    monkeypatch.setattr(ablate, "load_victim", lambda *_, **__: tiny_victim)
    monkeypatch.setattr(figures, "draw_all", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str, train: bool = True) -> tuple[Result, dict[str, Any]]:
    given = ["--data", "eval", "-o", "out", "--seeds", "0", "--budget", "160"]
    given += ["--train-data", "train"] if train else []
    result = CliRunner().invoke(ablate.main, [*given, *args])
    held = Path("out/results.json")
    return result, json.loads(held.read_text()) if held.exists() else {}


@pytest.mark.parametrize("name", ablate.ARMS)
def test_every_arm_is_a_spec_of_its_own(name: str, tiny_victim: Victim) -> None:
    spec = parse_method(ablate.ARMS[name])
    assert spec.name == "cbgan" and spec.learns == (name in ablate.DRIVEN)
    assert [other for other, text in ablate.ARMS.items() if parse_method(text) == spec] == [name]


def test_arms_are_rows_of_a_comparison_and_not_run_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--only", "jigsaw", "--only", "photographs", "--set", "generator_width=4"]
    first, result = run(*words)
    assert first.exit_code == 0, first.output
    classes = {row["method"]: row["data_class"] for row in result["rows"]}
    own = "+gan=false+generator_width=4"
    assert classes == {f"cbgan@jigsaw{own}": "none", f"cbgan@train{own}+pool=0": "driven"}
    assert all(0.8 * 160 <= cell["image_gradients"] <= 160 for cell in result["cells"])
    monkeypatch.setattr("uapgen.compare.crafter.craft", None)
    again, same = run(*words)
    assert again.exit_code == 0 and same["cells"] == result["cells"]
    refused, _ = run(*words, "--budget", "200")
    assert "another comparison (budget = 160 there, 200 now)" in str(refused.exception)


def test_photographs_are_asked_for(place: Path) -> None:
    result, held = run("--only", "photographs", train=False)
    assert (result.exit_code, held) == (2, {})
    assert "give --train-data DIR" in result.output


def test_an_arms_own_value_wins_over_one_for_all() -> None:
    first, second = ablate.specs(["cosine", "gan"], {"logits": "3"})
    assert first == ablate.ARMS["cosine"] and second == f"{ablate.ARMS['gan']}+logits=3"


def test_a_folder_of_other_cells_is_refused(place: Path) -> None:
    Path("out").mkdir()
    Path("out/cells.jsonl").write_text('{"arm": "no GAN: jigsaws", "seed": 0}\n')
    result, _ = run("--only", "jigsaw")
    assert "something else than a comparison" in str(result.exception)
