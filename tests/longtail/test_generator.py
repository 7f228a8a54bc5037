"""GANs on labelled data: class balancing in the loop, the generator's file, scores, the benchmark, its commands."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner

from tests.longtail.brightness import CLASSES, bright, brightness_victim, flat
from uapgen.cli import cli
from uapgen.errors import UapgenError, UsageError
from uapgen.experiments import find, load, presets
from uapgen.gan import ClassBalance
from uapgen.longtail import LabelledImages, Recipe, load_data, long_tailed
from uapgen.longtail.bench import lines_of, run_bench
from uapgen.longtail.bench.plan import BenchCell, BenchPlan
from uapgen.longtail.bench.table import render, summarise, write_report
from uapgen.longtail.gan_recipe import GanRecipe
from uapgen.longtail.generator import load_generator, train_generator
from uapgen.longtail.gold import GoldPlan
from uapgen.longtail.metrics.judge import Judge, by_class
from uapgen.longtail.synthetic import SyntheticPlan
from uapgen.runfolder import load_state
from uapgen.runtime import rng
from uapgen.victims import Victim
from uapgen.victims.trained import classifier_header

SMALL = GanRecipe(width=4, latent_dim=8, images=48, batch=16, lr=1e-3, ema_halflife=100, ema_start=0, window=32)


@pytest.fixture
def judge_of_brightness() -> Victim:
    return brightness_victim()


def test_balance_of_one_batch_is_the_formula(judge_of_brightness: Victim) -> None:
    x = flat(torch.tensor([0.0, 0.0, 0.25, 1.0]))
    loss, figures = ClassBalance(judge_of_brightness, 3.0)(x, 0)
    p = judge_of_brightness(x).softmax(1).mean(0)
    assert float(loss) == pytest.approx(3 * float((p * p.log()).sum()), rel=1e-5)
    assert float(figures["balance_loss"]) == pytest.approx(float(loss) / 3)


def test_balance_weighs_what_was_made_rarely(judge_of_brightness: Victim) -> None:
    """After a window of class 0 alone, N_0 is large and its weight small: the gradient drives away from it."""
    balance = ClassBalance(judge_of_brightness, 1.0, window=8, first_window=0.0, initial=1.0)
    balance(flat(torch.zeros(8)), 0)
    weights = balance.frequency.weights()
    assert weights[0] < 0.5 < 1 < weights[1] and float(weights.sum()) == pytest.approx(CLASSES)
    plain = ClassBalance(judge_of_brightness, 1.0, effective=False, window=8, first_window=0.0, initial=1.0)
    plain(flat(torch.zeros(8)), 0)
    x = flat(torch.tensor([0.1, 0.9]))
    assert float(plain(x, 8)[0]) != pytest.approx(float(balance(x, 8)[0]))


def test_balance_alone_makes_dark_pictures_even(judge_of_brightness: Victim) -> None:
    """A generator of 40 flat pictures, all dark, that follows the regulariser and nothing else."""
    levels = (0.3 * torch.rand(40, generator=rng(0, "levels"))).requires_grad_()
    balance = ClassBalance(judge_of_brightness, 1.0, window=400, first_window=1.0, initial=1.0)
    optimizer = torch.optim.Adam([levels], 0.01)

    def kl() -> float:
        p = judge_of_brightness(flat(levels.detach().clamp(0, 1))).softmax(1).mean(0)
        return float(torch.xlogy(p, p * CLASSES).sum())

    before = kl()
    for step in range(120):
        loss, _ = balance(flat(levels), 40 * step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before > 0.5 and kl() < 0.1


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    os.environ["RANK"] = str(rank)
    _balanced_run(Path(folder) / "two")
    dist.destroy_process_group()


def _balanced_run(folder: Path) -> None:
    recipe = GanRecipe(**{**SMALL.__dict__, "balance": 5.0, "images": 48, "lr": 2e-4})
    train_generator(bright(40, size=16), recipe, folder=folder, classifier=brightness_victim(), device="cpu")


def test_balance_over_two_processes_equals_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    _balanced_run(tmp_path / "one")
    one, two = (load_state(tmp_path / name / "gan.safetensors")[0] for name in ("one", "two"))
    assert torch.equal(one["state.balance.frequency"], two["state.balance.frequency"])
    for name, tensor in one.items():
        if name.startswith("g.") and "bias" not in name and "running" not in name:
            assert torch.allclose(tensor, two[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"labels": "projection", "gsr": 0.5},
        {"labels": "auxiliary", "loss": "hinge", "augment": True},
        {"network": "biggan", "labels": "projection", "noise": 0.75, "latent_dim": 16, "width": 2},
        {"network": "resgan", "width": 2, "loss": "ragan"},
    ],
)
def test_a_generator_comes_back_from_its_file(tmp_path: Path, change: dict[str, Any]) -> None:
    recipe = GanRecipe(**{**SMALL.__dict__, "images": 16, **change})
    trained = train_generator(bright(20), recipe, folder=tmp_path, device="cpu")
    images, labels = trained.sample(10, seed=3)
    again = load_generator(tmp_path, device="cpu")
    assert torch.equal(again.sample(10, seed=3)[0], images) and again.header == trained.header
    assert images.shape == (10, 3, 32, 32) and images.dtype == torch.uint8
    assert (labels is None) == (recipe.labels == "none") and again.counts.tolist() == [4] * CLASSES


def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path: Path, judge_of_brightness: Victim) -> None:
    recipe = GanRecipe(**{**SMALL.__dict__, "balance": 5.0, "images": 96, "labels": "projection", "gsr": 0.5})
    common: dict[str, Any] = {"classifier": judge_of_brightness, "device": "cpu", "save_every": 32}

    def stop(done: int, figures: dict[str, float]) -> None:
        if done >= 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_generator(bright(20), recipe, folder=tmp_path / "a", callback=stop, **common)
    train_generator(bright(20), recipe, folder=tmp_path / "a", **common)
    train_generator(bright(20), recipe, folder=tmp_path / "b", **common)
    files = [(tmp_path / name / "generator.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "dcgan"}, "sndcgan"),
        ({"loss": "wgan"}, "expected rsgan"),
        ({"network": "biggan"}, "biggan is conditional"),
        ({"gsr": 1.0}, "class-conditional batch norms"),
        ({"labels": "projection", "noise": 1.0}, "biggan's shared class embedding"),
        ({"batch": 1}, "batch 1"),
        ({"balance": 1.0}, "needs a classifier"),
        ({"lr_d": 0.0}, "positive rates"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train_generator(bright(10), GanRecipe(**{**SMALL.__dict__, **change}), folder=tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_data_that_does_not_fit_is_refused(tmp_path: Path, tiny_victim: Victim) -> None:
    balanced = GanRecipe(**{**SMALL.__dict__, "balance": 1.0})
    with pytest.raises(UsageError, match="10 classes, bright 5"):
        train_generator(bright(10), balanced, folder=tmp_path, classifier=tiny_victim, device="cpu")
    with pytest.raises(UapgenError, match="have no image"):
        train_generator(bright(4), SMALL, folder=tmp_path, device="cpu")
    odd = LabelledImages(torch.zeros(4, 3, 32, 16, dtype=torch.uint8), torch.arange(4) % 2, 2, "odd")
    with pytest.raises(UsageError, match="32x16"):
        train_generator(odd, SMALL, folder=tmp_path, device="cpu")
    small = LabelledImages(torch.zeros(4, 3, 20, 20, dtype=torch.uint8), torch.arange(4) % 2, 2, "small")
    with pytest.raises(UsageError, match="size 20"):
        train_generator(small, SMALL, folder=tmp_path, device="cpu")


def test_scores_of_real_images_are_what_they_should_be(judge_of_brightness: Victim) -> None:
    """The reference scored against itself: KL 0, distance 0, all inside the manifold, a useful training set."""
    data = bright(100)
    cas = Recipe(depth=8, width=4, epochs=12, batch=10, loss="ce", deferred=False, warmup=1)
    figures = Judge(judge_of_brightness, data, cas=cas, kid_blocks=2, pairs=5).score(
        data.images, data.labels, data.counts()
    )
    assert figures["kl"]["value"] == pytest.approx(0, abs=1e-9)
    assert figures["Frechet-annotator"]["value"] == pytest.approx(0, abs=1e-6)
    assert figures["precision-annotator"]["value"] == figures["label agreement"]["value"] == 1
    assert figures["CAS"]["value"] > 0.4  # chance is 0.2; 0.6 to 1.0 were seen
    one_class = data.images[data.labels == 2]
    worse = Judge(judge_of_brightness, data, cas=cas, kid_blocks=2, pairs=5).score(one_class, None, data.counts())
    assert worse["kl"]["value"] == pytest.approx(math.log(CLASSES))
    assert worse["CAS"]["value"] == pytest.approx(1 / CLASSES), "a collapsed generator teaches one class"
    assert "label agreement" not in worse
    with pytest.raises(UsageError, match="expected equal numbers"):
        Judge(judge_of_brightness, data).score(one_class, None, torch.ones(3))


def test_conditions_decide_the_halves(judge_of_brightness: Victim) -> None:
    """Samples under the labels that they were made for, not under those that the annotator gives them."""
    data, counts = bright(50), torch.tensor([5, 4, 3, 2, 1])
    judge = Judge(judge_of_brightness, data, kid_blocks=2, pairs=5)
    seen, made = (judge.score(data.images, y, counts) for y in (None, (data.labels + 1) % CLASSES))
    assert made["label agreement"]["value"] == 0
    assert seen["Frechet-annotator/minority"]["value"] == pytest.approx(0, abs=1e-6)
    assert made["Frechet-annotator/minority"]["value"] > 1


def test_sheets_are_ordered_by_class(judge_of_brightness: Victim) -> None:
    levels = torch.tensor([1.0, 0.0, 1.0, 0.5])
    sheet = by_class(judge_of_brightness, (255 * flat(levels)).byte(), each=2).view(CLASSES, 2, 3, 32, 32)
    assert (sheet[4] > 250).all() and (sheet[2, 0] > 120).all()
    assert (sheet[2, 1] == 0).all() and (sheet[1] == 0).all()  # nothing of these: black


MICRO = """
data = "digits"
size = 16
n_max = 20
imbalances = [1, 4]
seeds = [0, 1]
samples = 60
[classifier]
depth = 8
width = 2
epochs = 1
[annotator]
depth = 8
width = 2
epochs = 1
[gan]
width = 2
latent_dim = 4
images = 16
batch = 8
ema_halflife = 10
ema_start = 0
[method.plain]
[method.balanced]
balance = { 1 = 5, 4 = 7.5 }
"""


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    file = tmp_path / "micro.toml"
    file.write_text(MICRO)
    return file


def test_a_benchmark_goes_on_where_it_was_interrupted(
    tmp_path: Path, micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, trained = load(BenchPlan, micro), []
    assert (
        plan.recipe(BenchCell(4, "balanced", 0)).balance == 7.5 and plan.recipe(BenchCell(4, "plain", 0)).balance == 0
    )

    def interrupted(text: str) -> None:
        if text.startswith("3/8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(plan, tmp_path / "run", device="cpu", say=interrupted)
    monkeypatch.setattr(
        "uapgen.longtail.bench.train_generator",
        lambda *args, **kwargs: (trained.append(kwargs["folder"].name), train_generator(*args, **kwargs))[1],
    )
    lines = lines_of(plan, run_bench(plan, tmp_path / "run", device="cpu"))
    assert len(lines) == 8 and len(trained) == 5 and len({line["key"] for line in lines}) == 8
    rows = summarise(plan, lines)
    values = [line["scores"]["kl"]["value"] for line in lines if (line["imbalance"], line["method"]) == (4, "balanced")]
    row = next(row for row in rows if (row["imbalance"], row["method"]) == (4, "balanced"))
    assert row["figures"]["kl"]["mean"] == pytest.approx(sum(values) / 2) and row["seeds"] == [0, 1]
    annotator = classifier_header(tmp_path / "run" / "classifiers" / "annotator" / "classifier.safetensors")
    assert annotator["training"]["seed"] not in plan.seeds, "a seed that no classifier in the loop has"
    table = write_report(plan, lines, tmp_path / "run")
    assert table.count("| balanced") == 2 and "no FID" in table
    for name in ("table.md", "results.json", "classes-1.png", "classes-4.png", "samples/4-plain-1.png"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    json.loads((tmp_path / "run" / "results.json").read_text())
    failed = {"key": "4/plain/0", "imbalance": 4, "method": "plain", "seed": 0, "error": "the loss became nan"}
    assert "1 (1 failed)" in render(plan, [failed if line["key"] == failed["key"] else line for line in lines])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width = 2\nlatent_dim", "widht = 2\nlatent_dim", "did you mean 'width'"),
        ("imbalances = [1, 4]", "", "imbalances is missing; expected a list of numbers"),
        ("1 = 5, 4 = 7.5", "1 = 5", "no value for imbalance 4"),
        ("[method.plain]\n[method.balanced]\nbalance = { 1 = 5, 4 = 7.5 }\n", "", "method is missing"),
        ("size = 16", "size = ", "is not TOML"),
        ("epochs = 1\n[gan]", "epochs = 0\n[gan]", "0 epochs"),
        ("n_max = 20", "n_max = true", "n_max = True; expected an integer"),
        ("seeds = [0, 1]", "seeds = []", "at least one of each"),
        ("[method.plain]", "[method]\nplain = 3", "plain = 3; expected a section"),
    ],
)
def test_plans_that_cannot_be(micro: Path, old: str, new: str, message: str) -> None:
    assert old in MICRO
    micro.write_text(MICRO.replace(old, new))
    with pytest.raises(UsageError, match=message):
        load(BenchPlan, micro)


def test_every_preset_is_a_plan() -> None:
    assert "digits" in presets(BenchPlan)
    for name in presets(BenchPlan):
        assert list(load(BenchPlan, find(BenchPlan, name)).cells())
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        find(BenchPlan, "digit")


def run(*args: str) -> Any:
    return CliRunner().invoke(cli, ["gan", *args])


def test_commands_from_classifier_to_score(tmp_path: Path) -> None:
    common = ("--data", "digits", "--size", "16", "--device", "cpu")
    tail = (*common, "--imbalance", "4", "--n-max", "20")
    small = ("--set", "depth=8", "--set", "width=2", "--set", "epochs=1")
    fields = ("images=16", "batch=8", "width=2", "labels=projection", "balance=10", "ema_start=0")
    recipe = [text for field in fields for text in ("--set", field)]
    loop, annotator, gan = (str(tmp_path / name) for name in ("loop", "annotator", "gan"))
    for args in (
        ("classifier", *tail, *small, "-o", loop),
        ("classifier", *common, *small, "--seed", "1", "-o", annotator),
        ("train", *tail, *recipe, "--classifier", loop, "-o", gan),
        ("sample", gan, "-n", "12", "-o", f"{gan}.npz", "--device", "cpu"),
        ("sample", gan, "-n", "50", "--by", annotator, "-o", f"{gan}.png", "--device", "cpu"),
    ):
        result = run(*args)
        assert result.exit_code == 0, (args, result.output, result.exception)
    with np.load(f"{gan}.npz") as held:
        assert held["images"].shape == (12, 16, 16, 3) and held["labels"].tolist() == [*range(10), 0, 1]
    result = run(
        "score", gan, "--annotator", annotator, "-n", "60", "--data", "digits", "--json", "-", "--device", "cpu"
    )
    assert result.exit_code == 0, (result.output, result.exception)
    scores = json.loads(result.stdout)["scores"]
    assert scores["kl"]["n"] == 60 and scores["Frechet-annotator"]["n_reference"] == 340
    result = run("score", gan, "--annotator", loop, "--device", "cpu")
    assert isinstance(result.exception, UsageError) and "independent" in str(result.exception)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "-o", "x", "--set", "widht=3"), "did you mean 'width'"),
        (("train", "-o", "x", "--data", "cifar11"), "neither a known name nor a path"),
        (("train", "-o", "x", "--n-max", "5"), "--imbalance 1"),
        (("train", "-o", "x", "--imbalance", "0.5"), "at least 1"),
        (("train", "-o", "x", "--classes", "40"), "has 10 classes"),
        (("train", "-o", "x", "--size", "20"), "size 20"),
        (("sample", "nowhere", "-o", "x.png"), "is not there"),
        (("sample", "nowhere", "-o", "x.gif"), r"\.png or \.npz"),
        *(((verb,), "one of them") for verb in ("bench", "gold", "classify")),
        *(((verb, "--preset", "digits"), "-o RUN is missing") for verb in ("bench", "gold", "classify")),
    ],
)
def test_errors_of_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert isinstance(result.exception, UapgenError)
    assert re.search(message, str(result.exception))


@pytest.mark.parametrize(("verb", "kind"), [("bench", BenchPlan), ("gold", GoldPlan), ("classify", SyntheticPlan)])
def test_a_preset_is_shown_as_it_lies(verb: str, kind: type) -> None:
    assert run(verb, "--preset", "digits", "--show").stdout == find(kind, "digits").read_text()


def test_digits_have_the_long_tail_that_the_preset_asks() -> None:
    plan = load(BenchPlan, find(BenchPlan, "digits"))
    data = long_tailed(load_data("digits", size=16), 100, n_max=plan.n_max)
    assert data.counts().tolist() == [140, 83, 50, 30, 18, 10, 6, 3, 2, 1]
