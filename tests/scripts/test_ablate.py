"""scripts/ablate.py: every arm of the ladder runs, says what data it saw, and is not run twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torchvision.utils import save_image

from scripts import ablate
from tests.conftest import gratings
from uapgen.attacks import Crafting, craft
from uapgen.gan import proxy_gan as proxy
from uapgen.proxies import Folder
from uapgen.victims import Victim

SMALL = {"gan_width": 2, "gan_size": 32, "gan_batch": 8, "gan_latent": 8, "candidates": 1, "generator_width": 4}
BUDGET = 160


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_victim: Victim) -> Path:
    """Folders of pictures, a tiny victim and tiny GANs; the script's own parameters win over SMALL."""
    for name in ("eval", "train"):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(gratings(8, seed=len(name))[0]):
            save_image(picture, tmp_path / name / f"{i}.png")
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(proxy, "COVERAGE_IMAGES", 16)
    monkeypatch.setattr("uapgen.attacks.cbgan.method.GAN_POOL", 32)
    monkeypatch.setattr(ablate, "load_victim", lambda *_, **__: tiny_victim)
    monkeypatch.setattr(ablate, "craft", lambda victim, **given: craft(victim, **{**SMALL, "pool": 16, **given}))
    return tmp_path


def run(place: Path, *args: str, train: bool = True) -> tuple[Result, list[dict[str, Any]]]:
    given = ["--data", str(place / "eval"), "--out", str(place / "out"), "--seeds", "0", "--budget", str(BUDGET)]
    given += ["--train", str(place / "train")] if train else []
    result = CliRunner().invoke(ablate.main, [*given, *args])
    cells = place / "out" / "cells.jsonl"
    return result, [json.loads(line) for line in cells.read_text().splitlines()] if cells.exists() else []


def test_every_arm_runs_once_at_equal_cost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, cells = run(place, "--skip", "gan")
    assert first.exit_code == 0, first.output
    expected = [arm.label for name, arm in ablate.ARMS.items() if name != "gan"]
    assert [cell["arm"] for cell in cells] == expected
    for cell in cells:
        assert 0.8 * BUDGET <= cell["image_gradients"] <= BUDGET
        assert cell["data_class"] == ("driven" if "photographs" in cell["arm"] else "none")
        assert cell["n"] == 8
        assert (cell["coverage"] is None) == cell["arm"].startswith("no GAN")
        assert (cell["gold"] is None) == ("GOLD" not in cell["arm"])
    # 500 photographs are all eight.
    assert len({cell["delta_sha256"] for cell in cells}) == len(cells) - 1
    table = (place / "out" / "table.md").read_text()
    assert "| no GAN: all photographs | driven |" in table
    assert "| no GAN: jigsaws | none |" in table
    # The one that was left out is all that remains to be done.
    again, cells = run(place)
    assert again.exit_code == 0, again.output
    assert [cell["arm"] for cell in cells] == [*expected, ablate.ARMS["gan"].label]
    monkeypatch.setattr(ablate, "craft", None)
    assert run(place)[0].exit_code == 0
    other, _ = run(place, "--budget", "200")
    assert other.exit_code == 2
    assert "another --out" in other.output


def test_victims_that_nothing_was_crafted_on_are_measured_too(place: Path) -> None:
    result, (cell,) = run(place, "--only", "jigsaw", "--transfer-victim", "tiny")
    assert result.exit_code == 0, result.output
    assert list(cell["transfer"].values()) == [cell["changed"] / cell["n"]]  # here it is the same victim
    row = next(line for line in result.output.splitlines() if line.startswith("| no GAN: jigsaws"))
    rate = f"{100 * cell['changed'] / cell['n']:.1f}"
    assert [text.strip() for text in row.strip("|").split("|")][1:5] == ["none", rate, rate, rate]


def test_what_is_set_for_all_arms_stays(place: Path) -> None:
    result, (cell,) = run(place, "--only", "jigsaw", "--set", "activation=1", "--set", "displacement=0")
    assert result.exit_code == 0, result.output
    assert cell["settings"] == {"activation": "1", "displacement": "0"}
    assert "eps 10/255, activation=1, displacement=0, 160 image-gradients" in result.output
    (place / "out" / "cells.jsonl").rename(place / "kept.jsonl")
    _, (other,) = run(place, "--only", "jigsaw")
    assert other["delta_sha256"] != cell["delta_sha256"]
    refused, _ = run(place, "--only", "jigsaw", "--set", "activation=1")
    assert refused.exit_code == 2
    assert "of another --set" in refused.output


def test_photographs_are_asked_for(place: Path) -> None:
    result, cells = run(place, "--only", "real-500", train=False)
    assert (result.exit_code, cells) == (2, [])
    assert "give --train DIR" in result.output
    result, cells = run(
        place, *(f"--skip={name}" for name in ablate.ARMS if name not in ("jigsaw", "real-all")), train=False
    )
    assert result.exit_code == 0, result.output
    assert [cell["arm"] for cell in cells] == [ablate.ARMS["jigsaw"].label]


def test_a_few_photographs_are_drawn_by_seed(place: Path, tiny_victim: Victim) -> None:
    def names(most: int | None, seed: int) -> list[str]:
        source = ablate.photographs(most)(Crafting(tiny_victim, None, 0.1, seed, 100), place / "train")
        assert isinstance(source, Folder)
        assert source.describe()["n"] == len(source.files)
        assert source.batch(3, torch.Generator()).shape == (3, 3, 32, 32)
        return [file.name for file in source.files]

    assert len(names(None, 0)) == 8
    assert names(5, 0) == names(5, 0)
    assert len({*names(5, 0)}) == 5
    assert any(names(5, 0) != names(5, seed) for seed in (1, 2, 3))
