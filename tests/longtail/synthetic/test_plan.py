"""Plans, ensembles, the whole run on a micro plan, its table, figures and command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.conftest import ROOT
from uapgen.cli.gan.benchmarks import classify_command as command
from uapgen.errors import UapgenError, UsageError
from uapgen.experiments import load, parse, presets
from uapgen.longtail import LabelledImages, load_data
from uapgen.longtail.gan_recipe import GanRecipe
from uapgen.longtail.synthetic import PUBLISHED_GAN, SyntheticPlan, ensemble, run_plan, train_ensemble
from uapgen.longtail.synthetic.plan import sources
from uapgen.longtail.synthetic.run import _options, collect
from uapgen.longtail.synthetic.table import render
from uapgen.perturbation import Perturbation
from uapgen.tables import spread
from uapgen.victims import Victim

MICRO = """
data = "digits"
seeds = [0]
images = 60

[gan]
network = "sndcgan"
width = 2
latent_dim = 8
images = 64
batch = 16
d_steps = 1
ema_halflife = 100
ema_start = 32

[classifier]
depth = 8
width = 2
epochs = 2
batch = 60

[grid]
modes = ["fixed", "on-the-fly"]
tricks = ["none", "transform+filter+truncation"]
threshold = 0.0
tries = 200

[ensembles]
sizes = [1, 2]
methods = ["unconditioned", "A_mu"]
tricks = "transform"
shares = [[0.75, 0.25]]

[samples]
images = 200
pairs = 3
figure = 6
figure_classes = 2
"""
GAN = GanRecipe("sndcgan", "projection", width=2, latent_dim=8, images=32, batch=16, ema_halflife=100, ema_start=0)


@pytest.fixture(scope="module")
def few() -> LabelledImages:
    return load_data("digits").subset(torch.arange(200))


def test_the_published_grid_has_its_cells_once() -> None:
    plan = SyntheticPlan()
    names = [cell.name for cell in plan.cells()]
    assert len(names) == len(set(names)) == 12 + 2 * 5  # one GAN, on the fly with transform+filter, is in both tables
    assert "fixed, transform+filter+truncation" in names and "on-the-fly, transform+filter, 3 GANs A_sigma" in names
    shares = parse(SyntheticPlan, "[ensembles]\nshares = [[0.75, 0.25]]", "x").cells()
    first = next(cell.name for cell in shares if cell.shares)
    assert first == "on-the-fly, transform+filter, 2 GANs A_mu, shares 0.75/0.25"
    found = [cell.source for cell in sources(plan.cells())]
    assert found[:3] == ["1 GAN", "1 GAN, truncated", "2 GANs unconditioned"] and len(found) == len(set(found)) == 12


def test_the_published_settings_are_the_defaults() -> None:
    plan = load(SyntheticPlan, presets(SyntheticPlan)["cifar10"])
    assert plan.gan == PUBLISHED_GAN and plan.gan.network == "biggan"
    assert plan.gan.images == 100_000 * plan.gan.batch and plan.gan.d_steps == 5
    rates = [plan.classifier.rate(epoch) for epoch in (0, 99, 100, 149, 150, 179)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (plan.classifier.depth, plan.classifier.width, plan.classifier.batch) == (20, 64, 125)
    assert plan.gan.ema_halflife == pytest.approx(64 * 0.6931 / 1e-4, rel=1e-3)
    assert {"cifar10", "digits"} <= set(presets(SyntheticPlan))
    assert all(load(SyntheticPlan, file).cells() for file in presets(SyntheticPlan).values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = [0]", "plan.toml: sed is unknown; did you mean 'seeds'"),
        ("[gan]\nwdith = 3", r"plan.toml \[gan\]: wdith is unknown; did you mean 'width'"),
        ('images = "many"', "images = 'many'; expected an integer"),
        ("seeds = 3", "seeds = 3; expected a list of integers"),
        ("seeds = []", "expected a seed"),
        ("data = ", "is not TOML"),
        ('[grid]\nmodes = ["often"]', "mode 'often' is unknown; expected fixed, on-the-fly"),
        ('[grid]\ntricks = ["flip"]', "tricks 'flip' are unknown"),
        ('[ensembles]\nmethods = ["D"]', "weighting 'D' is unknown; expected unconditioned, A_mu"),
        ("[ensembles]\nshares = [[0.75, 0.35]]", "that sum to 1"),
        ("[ensembles]\nshares = [0.75, 0.25]", "shares = 0.75; expected a list of numbers"),
        ("[ensembles]\nsizes = [0]", "sizes from 1"),
        ("[grid]\nmodes = []\n[ensembles]\nsizes = []", "asks for nothing"),
        ("[classifier]\nlr = 0.0", "positive rate"),
        ('[gan]\nnetwork = "sndcgan"\nlabels = "none"', "need labels"),
    ],
)
def test_plans_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(SyntheticPlan, text, "plan.toml")


def test_conditioned_members_are_shown_what_was_missed(
    few: LabelledImages, tiny_victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[torch.Tensor] = []
    original = ensemble.drawn_by

    def spy(data: LabelledImages, weights: torch.Tensor) -> object:
        shown.append(weights)
        return original(data, weights)

    monkeypatch.setattr(ensemble, "drawn_by", spy)
    settings = {"recipe": GAN, "phi": tiny_victim, "folder": tmp_path, "device": "cpu"}
    plain = train_ensemble(few, 2, **settings)  # type: ignore[arg-type]
    assert not shown and {path.name for path in tmp_path.iterdir()} == {"unconditioned-1", "unconditioned-2"}
    conditioned = train_ensemble(few, 2, "A_mu", **settings)  # type: ignore[arg-type]
    assert len(shown) == 1 and 0 < int((shown[0] == 0).sum()) < len(few)
    for k in range(10):
        assert shown[0][few.labels == k].sum().item() == pytest.approx(0.1)
    state = [[g.state_dict()["project.weight"] for g in members] for members in (plain, conditioned)]
    assert torch.equal(state[0][0], state[1][0])  # all weightings share the first
    assert not torch.equal(state[0][1], state[1][1]) and not torch.equal(state[0][0], state[0][1])
    with pytest.raises(UsageError, match="ensemble of 0 generators"):
        train_ensemble(few, 0, **settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="need labels"):
        train_ensemble(few, 1, **{**settings, "recipe": GanRecipe()})  # type: ignore[arg-type]


def test_a_filter_that_starves_fails_its_cell_alone(tmp_path: Path) -> None:
    text = MICRO.replace("threshold = 0.0", "threshold = 1.0").replace("tries = 200", "tries = 1")
    plan = parse(SyntheticPlan, text.replace("sizes = [1, 2]", "sizes = []"), "x")
    with pytest.raises(UapgenError, match=r"2 cells failed, the first is seed 0, fixed, transform\+filter\+truncation"):
        run_plan(plan, tmp_path, device="cpu", say=lambda text: None).check()
    assert {row["name"] for row in collect(plan, tmp_path) if row["kind"] == "classifier"} == {
        "real data",
        "fixed, none",
        "on-the-fly, none",
    }


def test_spread() -> None:
    assert [spread(v, 1) for v in ([], [71.25], [1.0, 3.0])] == ["-", "71.2", "2.0 ± 1.4"]


def test_from_the_shell_and_once_more_with_a_uap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(MICRO)
    words = ["plan.toml", "-o", "run", "--device", "cpu", "--threads", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "uapgen", "gan", "classify", *words]
    done = subprocess.run(start, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == Path("run/table.md").read_text()
    assert {"features.png", "weights.png", "seed0", "options.json", "table.md"} == {
        p.name for p in Path("run").iterdir()
    }
    rows = Path("run/seed0/rows.jsonl").read_bytes()
    found = [json.loads(line) for line in rows.splitlines()]
    plan = parse(SyntheticPlan, MICRO, "plan.toml")
    assert [row["name"] for row in found if row["kind"] == "classifier"] == [
        "real data",
        *(c.name for c in plan.cells()),
    ]
    assert all(0 <= row["last_accuracy"] <= row["best_accuracy"] <= 1 for row in found if row["kind"] == "classifier")
    assert all(row["ms_ssim_scales"] == 2 for row in found if row["kind"] == "source")
    shares = next(line for line in done.stdout.splitlines() if line.startswith("| 2, 0.75/0.25, best"))
    assert shares.split("|")[2].strip() == "-" and "(2 here)" in done.stdout

    delta = 8 / 255 * torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)).sign()
    uap = Perturbation.create(delta, eps=8 / 255, method={"name": "signs"}, data={"class": "none"})
    uap.save("uap.safetensors")
    again = CliRunner().invoke(command, [*words, "--uap", "uap.safetensors", "--no-figures"])
    assert again.exit_code == 0, again.output
    longer = Path("run/seed0/rows.jsonl").read_bytes()
    assert longer.startswith(rows)  # nothing was done twice
    attacked = [json.loads(line) for line in longer[len(rows) :].splitlines()]
    assert len(attacked) == 1 + len(plan.cells()) and {row["kind"] for row in attacked} == {"uap"}
    clean = {row["name"]: row["last_accuracy"] for row in found if row["kind"] == "classifier"}
    for row in attacked:
        assert row["clean_accuracy"] == pytest.approx(clean[row["name"]]) and row["fooling_rate"]["n"] == 340
    assert "## Under signs (linf 8/255, resized" in again.stdout
    assert render(plan, [*found, *attacked]) == again.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of them"),
        (["--preset", "digits", "plan.toml"], "one of them"),
        (["--preset", "digit"], "did you mean 'digits'"),
        (["nowhere.toml"], "nowhere.toml cannot be read"),
        (["--preset", "digits", "--seeds", "2..0"], "neither a seed nor FIRST..LAST"),
        (["--preset", "digits", "--uap", "nowhere"], "nowhere is not there"),
    ],
)
def test_cheap_checks_come_first(words: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [*words, "-o", str(tmp_path / "run")])
    assert isinstance(result.exception, UapgenError) and message in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_another_plan_needs_another_folder(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(
        json.dumps({**_options(parse(SyntheticPlan, MICRO, "x")), "precision": "fp32"})
    )
    other = parse(SyntheticPlan, MICRO.replace("latent_dim = 8", "latent_dim = 9"), "x")
    with pytest.raises(UsageError, match=r"another run \(gan.latent_dim = 8 there, 9 now\)"):
        run_plan(other, tmp_path, device="cpu")
