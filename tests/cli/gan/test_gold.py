"""Fitting capacity, plans, and `uapgen gan gold` as its user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from uapgen.errors import UapgenError, UsageError
from uapgen.experiments import find, load, parse, presets
from uapgen.longtail import load_data
from uapgen.longtail.gold import Fitting, GoldPlan, capacity_figure, fitting_capacity, markdown, networks, of_set
from uapgen.longtail.gold.capacity import lenet
from uapgen.longtail.gold.examples import blobs, of_images
from uapgen.runtime import rng

MICRO = """
seeds = [0, 1]
[data]
spec = "blobs"
points = 60
[networks]
kind = "points"
width = 2
latent_dim = 2
[training]
images = 64
batch = 16
[fitting]
epochs = 1
samples = 50
[rejection]
percentiles = [50]
per_class = 20
batch = 10
calibration = 50
[active]
init = 2
query = 1
images = 32
rounds = 1
checks = 2
validation = 6
"""


def test_lenet_is_lenet5() -> None:
    net = lenet(10)
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    grey = 61_706  # of the network for one channel; two more add 2 * 6 * 25
    assert sum(p.numel() for p in net.parameters()) == grey + 300


def test_capacity_is_high_for_the_data_itself_and_chance_for_wrong_labels() -> None:
    train, test = blobs(600), blobs(300, seed=1)
    quick = Fitting(epochs=15, samples=600, batch=32, lr=5e-3, step=10)
    good = fitting_capacity(of_set(train), test, quick)
    assert good.top1.value is not None and good.top1.value > 0.9
    assert sum(good.trained_on) == 15 * 600
    wrong = fitting_capacity(of_set(replace(train, labels=1 - train.labels)), test, quick)
    assert wrong.top1.value is not None and wrong.top1.value < 0.1


def test_new_samples_in_each_epoch() -> None:
    asked: list[tuple[int, int]] = []

    def source(n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        asked.append((n, draws.initial_seed()))
        return torch.randn(n, 2, generator=draws), torch.zeros(n, dtype=torch.long)

    fitting_capacity(source, blobs(12), Fitting(epochs=3, samples=8, batch=4))
    assert [n for n, _ in asked] == [8, 8, 8] and len({seed for _, seed in asked}) == 3


def test_figure_says_its_terms() -> None:
    test = of_images(load_data("digits", train=False))
    figure = capacity_figure(of_set(test.subset(torch.arange(20))), test, Fitting(epochs=1, samples=20), seed=3)
    entry = figure["fitting-capacity"]
    assert (entry["n"], entry["n_reference"], entry["reference"]) == (20, 340, "digits")
    assert "LeNet, 1 epochs of 20 samples, seed 3" in entry["network"]
    json.dumps(figure, allow_nan=False)


def test_lenet_wants_32_pixels() -> None:
    test = of_images(load_data("digits", train=False, size=16))
    with pytest.raises(UsageError, match="32x32"):
        fitting_capacity(of_set(test), test)


@pytest.mark.parametrize("kind", ["points", "grey", "colour"])
def test_networks_fit_each_other(kind: str) -> None:
    nets = networks(kind, width=8, latent_dim=5)  # type: ignore[arg-type]
    g, d = nets.generator(4, 0), nets.discriminator(4, 0)
    x = g(torch.randn(3, 5, generator=rng(0)), torch.tensor([0, 1, 3]))
    assert x.shape == ((3, 2) if kind == "points" else (3, 3, 32, 32))
    judged = d.judge(x)
    assert judged.logits.shape == (3,) and judged.classes is not None and judged.classes.shape == (3, 4)


def test_published_widths() -> None:
    g = networks("colour").generator(10, 0)
    shapes = [tuple(p.shape) for p in g.parameters() if p.ndim > 1]
    assert shapes == [(384, 110), (384, 192, 4, 4), (192, 96, 4, 4), (96, 48, 4, 4), (48, 3, 4, 4)]


def test_presets_are_plans_with_the_published_numbers() -> None:
    assert set(presets(GoldPlan)) >= {"blobs", "digits", "mnist", "fashion-mnist", "svhn", "cifar10", "stl10", "lsun"}
    plans = {name: load(GoldPlan, file) for name, file in presets(GoldPlan).items()}
    assert all(len(plan.seeds) == 5 and plan.training.beta == 1 for plan in plans.values())
    for name, final in {"blobs": 8, "mnist": 18, "fashion-mnist": 40, "svhn": 100}.items():
        active = plans[name].active
        assert active is not None and active.init + active.rounds * active.query == final
    assert (plans["mnist"].training.fake_class, plans["mnist"].fitting) == (0.1, Fitting())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[50]", "[150]", "outside 0..100"),
        ("[50]", "50", "percentiles = 50; expected a list of numbers"),
        ("epochs = 1", "epocs = 1", "did you mean 'epochs'"),
        ("epochs = 1", "epochs = 0", "positive"),
        ("images = 64", "images = 'x'", "expected an integer"),
        ("images = 64", "", "images"),
        ('kind = "points"', 'kind = "grey"', "does not go with"),
        ("checks = 2\nvalidation = 6", "checks = 2\nvalidation = 0", "validation set"),
        ("[training]", "[trainin]", "did you mean 'training'"),
        ("seeds = [0, 1]", "seeds = ", "not TOML"),
    ],
)
def test_bad_plans_are_named(old: str, new: str, message: str) -> None:
    assert old in MICRO
    with pytest.raises(UsageError, match=message):
        parse(GoldPlan, MICRO.replace(old, new), "plan.toml")


def test_unknown_preset_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        find(GoldPlan, "digit")
    with pytest.raises(UapgenError, match="cannot be read"):
        load(GoldPlan, find(GoldPlan, tmp_path / "no.toml"))


def test_table_has_mean_deviation_and_n() -> None:
    common = {"part": "rejection", "labels": None, "check": None}
    records = [{**common, "row": "none", "seed": s, "value": v} for s, v in enumerate((0.5, 0.6, 0.7))]
    records.append({**common, "row": "p = 10", "seed": 0, "value": 0.8})
    records.append({**common, "row": "none", "seed": 0, "value": 0.1, "check": 0})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(records).splitlines()[2:]]
    assert rows == [["rejection", "none", "", "60.00 ± 10.00", "3"], ["rejection", "p = 10", "", "80.00", "1"]]


def gold(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = str(ROOT)
    environment = {"PYTHONPATH": root, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    command = [sys.executable, "-m", "uapgen", "gan", "gold", "--device", "cpu", *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_command_measures_resumes_and_refuses_another_plan(tmp_path: Path) -> None:
    (tmp_path / "micro.toml").write_text(MICRO)
    done = gold("micro.toml", "--jobs", "1", "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "run" / "table.md").read_text()
    rows = [line.split("|")[1:4] for line in done.stdout.splitlines()[2:]]
    parts = [tuple(cell.strip() for cell in row) for row in rows]
    assert ("re-weighting", "base", "") in parts and ("re-weighting", "re-weighted", "") in parts
    assert ("rejection", "none", "") in parts and ("rejection", "p = 50", "") in parts
    assert [part for part in parts if part[0] == "active"] == [
        ("active", "random", "2"),
        ("active", "gold", "2"),
        ("active", "random", "3"),
        ("active", "gold", "3"),
    ]
    assert all(line.endswith(" 2 |") for line in done.stdout.splitlines()[2:])

    results = tmp_path / "run" / "results.jsonl"
    whole = results.read_bytes()
    lines = whole.splitlines(keepends=True)
    both = gold("micro.toml", "--jobs", "2", "-o", "both", cwd=tmp_path)
    assert (both.returncode, both.stdout) == (0, done.stdout), both.stderr
    measured = (tmp_path / "both" / "results.jsonl").read_bytes().splitlines(keepends=True)
    assert sorted(measured) == sorted(lines)

    results.write_bytes(b"".join(lines[:-1]) + lines[-1][:10])  # killed in the middle of a line
    again = gold("micro.toml", "--jobs", "1", "-o", "run", cwd=tmp_path)
    assert (again.returncode, results.read_bytes()) == (0, whole), again.stderr

    (tmp_path / "micro.toml").write_text(MICRO.replace("images = 64", "images = 80"))
    other = gold("micro.toml", "--jobs", "1", "-o", "run", cwd=tmp_path)
    assert other.returncode == 2 and "holds another run (training" in other.stderr
    assert "Traceback" not in other.stderr


def test_lenet_sees_pixels_around_zero() -> None:
    assert torch.equal(lenet(3)[0](torch.full((1, 3, 2, 2), 0.25)), torch.full((1, 3, 2, 2), -0.5))


def test_the_rate_of_the_fitting_falls_to_a_tenth_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def spy(self: torch.optim.Adam, *args: Any, **options: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    fitting_capacity(of_set(blobs(12)), blobs(12), Fitting(epochs=5, samples=12, batch=12, lr=0.5, step=2))
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])
