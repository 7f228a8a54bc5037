"""uapgen.testing: assert_robust on models with a known fooling rate, and the fixture inside another pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from tests.conftest import ROOT, TINY
from uapgen.errors import UsageError
from uapgen.perturbation import Perturbation
from uapgen.testing import assert_robust
from uapgen.victims import Preprocessing, Victim

PLAIN = Preprocessing(input_size=(3, 4, 4), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)


def brightness() -> nn.Module:
    """Class 0 above 127.5 levels, class 1 below."""
    linear = nn.Linear(48, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.full((48,), 1 / 48), torch.zeros(48)]))
        linear.bias.copy_(torch.tensor([0.0, 0.5]))
    return nn.Sequential(nn.Flatten(), linear)


def greys(n: int = 200) -> torch.Tensor:
    """Levels 0..n-1 (uint8): +9 levels take exactly nine of them across the threshold."""
    return torch.arange(n).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)


@pytest.fixture
def up() -> Perturbation:
    delta = torch.full((3, 4, 4), 9 / 255)
    return Perturbation.create(delta, eps=10 / 255, method={"name": "shift"}, data={"class": "none"})


def test_nine_of_two_hundred(up: Perturbation, tmp_path: Path) -> None:
    """4.5 [2.4, 8.3]%: passes at 9%, fails at 2%, and at 5% only more images could tell."""
    up.save(tmp_path / "up.safetensors")
    given = {"images": greys(), "uaps": [tmp_path / "up.safetensors"], "preprocessing": PLAIN, "device": "cpu"}
    assert assert_robust(brightness(), max_fooling_rate=0.09, **given).rows[0].fooling_rate.count == 9
    with pytest.raises(AssertionError, match=r"shift fools 4\.5 .*above the limit of 2%"):
        assert_robust(brightness(), max_fooling_rate=0.02, **given)
    with pytest.raises(AssertionError, match="straddles the limit of 5%"):
        assert_robust(brightness(), max_fooling_rate=0.05, **given)
    assert_robust(brightness(), max_fooling_rate=0.05, on_inconclusive="pass", **given)
    floats = {**given, "images": greys().float() / 255}
    assert assert_robust(brightness(), max_fooling_rate=0.09, **floats).rows[0].fooling_rate.count == 9


def test_a_crafted_pattern_is_kept(tiny_victim: Victim, tmp_path: Path) -> None:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    given = {"images": images, "max_fooling_rate": 1.0, "method": "noise", "budget": 8, "folder": tmp_path}
    first = assert_robust(tiny_victim, **given)
    (file,) = tmp_path.glob("noise-*.safetensors")
    stamp = file.stat().st_mtime_ns
    again = assert_robust(tiny_victim, **given)
    assert file.stat().st_mtime_ns == stamp
    assert first.rows[0].fooling_rate == again.rows[0].fooling_rate
    file.write_bytes(b"damaged")
    assert_robust(tiny_victim, **given)
    assert Perturbation.load(file).method == "noise"
    assert_robust(tiny_victim, **{**given, "seed": 1})
    assert len(list(tmp_path.glob("noise-*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_fooling_rate": 40}, "such as 0.4"),
        ({"images": torch.rand(3, 4, 4)}, "shape"),
        ({"images": torch.rand(2, 3, 4, 4) * 255}, r"expected \[0,1\]"),
        ({"images": torch.full((2, 3, 4, 4), float("nan"))}, r"expected \[0,1\]"),
        ({"images": "nowhere"}, "not there"),
        ({"eps": 8 / 255}, "was made for linf 10/255"),
        ({"on_inconclusive": "maybe"}, "'fail' or 'pass'"),
    ],
)
def test_refused(up: Perturbation, change: dict, message: str) -> None:
    given = {"max_fooling_rate": 0.5, "images": greys(), "uaps": [up], "preprocessing": PLAIN, "device": "cpu"}
    with pytest.raises(UsageError, match=message):
        assert_robust(brightness(), **{**given, **change})
    with pytest.raises(UsageError, match="expected nn\\.Module"):
        assert_robust(3, **given)  # type: ignore[arg-type]


def test_the_model_is_left_alone(tiny_module: nn.Module, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_module.state_dict().items()}
    tiny_module.train()
    assert_robust(
        tiny_module, images=torch.rand(4, 3, 32, 32), max_fooling_rate=1.0, method="noise", budget=8,
        preprocessing=TINY, device="cpu",
    )  # fmt: skip
    assert tiny_module.training
    tiny_module.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_module.state_dict().items())


SUITE = """
from tests.testing.test_testing import PLAIN, brightness, greys

GIVEN = dict(images=greys(), method="noise", budget=8, preprocessing=PLAIN, device="cpu")

def test_good(assert_robust):
    assert_robust(brightness(), max_fooling_rate=0.5, **GIVEN)

def test_bad(assert_robust):
    assert_robust(brightness(), max_fooling_rate=0.0, **GIVEN)
"""


def test_the_fixture_in_a_suite_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_model.py").write_text(SUITE)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    words = "-m pytest -q -p uapgen.testing.plugin -o junit_family=xunit2 --junitxml=j.xml test_model.py"
    done = subprocess.run([sys.executable, *words.split()], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    cases = {case.get("name"): case for case in ElementTree.parse(tmp_path / "j.xml").getroot().iter("testcase")}
    assert cases["test_good"].find("failure") is None
    failure = cases["test_bad"].find("failure")
    assert failure is not None
    assert "is not robust at 10/255" in str(failure.get("message"))
    properties = {p.get("name"): p.get("value") for p in cases["test_good"].iter("property")}
    assert "[" in str(properties["fooling_rate[noise]"])
    assert len(list((tmp_path / ".pytest_cache").rglob("noise-*.safetensors"))) == 1


def test_the_plugin_does_not_load_torch() -> None:
    code = "import sys, uapgen.testing.plugin; assert 'torch' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0
