"""The commands: evaluate --defence --per-image --run, craft --through and several victims."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from uapgen.perturbation import Perturbation

VICTIM = '''
import torch
from torch import nn
from uapgen.victims import Preprocessing, Victim

def build(threshold=127.5):
    """Class 0 above the threshold (levels of 255), class 1 below."""
    linear = nn.Linear(192, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.full((192,), 1 / 192), torch.zeros(192)]))
        linear.bias.copy_(torch.tensor([0.0, threshold / 255]))
    plain = Preprocessing(input_size=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
    module = nn.Sequential(nn.Flatten(), linear)
    return Victim(module, name="brightness", preprocessing=plain, device="cpu", precision="fp32")

def other():
    return build(126.5)

def halved(x):
    return x / 2
'''


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Greys 100 .. 139 in data/, up.safetensors (+9 levels), and the victims of module `brightness`."""
    (tmp_path / "brightness.py").write_text(VICTIM)
    (tmp_path / "data").mkdir()
    for level in range(100, 140):
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / "data" / f"{level}.png")
    delta = torch.full((3, 8, 8), 9 / 255)
    uap = Perturbation.create(delta, eps=10 / 255, method={"name": "shift"}, data={"class": "none"})
    uap.save(tmp_path / "up.safetensors")
    return tmp_path


def uapgen(workplace: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "uapgen", *words]
    return subprocess.run(command, cwd=workplace, env=env, capture_output=True, text=True, timeout=300)


EVALUATE = ("evaluate", "up.safetensors", "--victim", "brightness:build", "--data", "data", "--workers", "0")


def test_evaluate_behind_defences_beside_attacks_and_again(workplace: Path) -> None:
    words = (
        *EVALUATE,
        *("--defence", "none,bits2,shift1,brightness:halved", "--per-image", "fgsm", "--run", "kept"),
        *("--predictions", "p.npz", "--json", "result.json"),
    )
    done = uapgen(workplace, *words)
    assert done.returncode == 0, done.stderr
    assert "behind a defence" in done.stdout
    found = json.loads((workplace / "result.json").read_text())
    assert found["rows"][0]["fooling_rate"]["count"] == 9  # 119 .. 127
    rows = {row["defence"]: row for row in found["defences"]}
    assert list(rows) == ["bits2", "shift1", "brightness:halved"]
    assert rows["bits2"]["fooling_rate"]["count"] == 9
    assert rows["bits2"]["moved_by_defence"]["count"] == 0
    assert rows["shift1"]["fooling_rate"]["count"] == 9  # a flat grey is the same everywhere
    assert rows["brightness:halved"]["fooling_rate"]["count"] == 0  # all is dark
    assert rows["brightness:halved"]["moved_by_defence"]["count"] == 12  # 128 .. 139
    assert found["per_image"][0]["fooling_rate"]["count"] == 20  # 118 .. 127 up, 128 .. 137 down
    arrays = np.load(workplace / "p.npz")
    assert arrays["defended_adv"].shape == (1, 3, 1, 40)
    assert arrays["defences"].tolist() == list(rows)
    again = uapgen(workplace, *words)
    assert again.returncode == 0, again.stderr
    assert json.loads((workplace / "result.json").read_text())["defences"] == found["defences"]
    other = uapgen(workplace, *words, "--seed", "1")
    assert other.returncode == 2
    assert "holds another run" in other.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--defence", "jpg75"), "did you mean 'jpeg75'"),
        (("--per-image", "l2-pgd"), "no perturbation here is"),
        (("--restart",), "give --run DIR too"),
    ],
)
def test_bad_words_are_refused_at_once(workplace: Path, words: tuple[str, ...], message: str) -> None:
    done = uapgen(workplace, *EVALUATE, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_craft_through_defences_on_two_victims(workplace: Path) -> None:
    words = ("craft", "--victim", "brightness:build,brightness:other", "--method", "sgd-uap", "--proxy", "procedural")
    done = uapgen(workplace, *words, "--budget", "40", "--through", "none,gauss1", "-o", "robust.safetensors")
    assert done.returncode == 0, done.stderr
    card = Perturbation.load(workplace / "robust.safetensors").card
    assert card["method"]["params"]["through"] == ["none", "gauss1"]
    assert len(card["victim"]["members"]) == 2
    refused = uapgen(workplace, *words, "--through", "gaus1")
    assert refused.returncode == 2
    assert "did you mean 'gauss1'" in refused.stderr
