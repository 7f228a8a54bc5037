"""Every field of every plan reaches what it is for: a changed value changes what the parts of an experiment are given.

The parts (training, scoring, sampling) are replaced by spies that write down all they were given and do next to
nothing. A trace is all of that, in order; each field of a plan has a changed value here, which must change the trace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from uapgen.experiments import parse
from uapgen.gan import GeneratorNetwork
from uapgen.gan.settings import TrainSettings
from uapgen.longtail import LabelledImages, Recipe, bench
from uapgen.longtail.bench.plan import BenchPlan
from uapgen.longtail.data import Stream
from uapgen.longtail.gan_recipe import GanRecipe
from uapgen.longtail.gold import active, experiment, training
from uapgen.longtail.gold import examples as gold_examples
from uapgen.longtail.gold.plan import GoldPlan
from uapgen.longtail.synthetic import run as synthetic
from uapgen.longtail.synthetic import table as synthetic_table
from uapgen.longtail.synthetic.plan import ClassifierCell, SyntheticPlan
from uapgen.longtail.synthetic.training import Outcome
from uapgen.runtime import rng, tensor_sha256
from uapgen.victims import Victim

Trace = list[Any]
Changes = dict[str, Any]


def replaced(plan: Any, path: str, value: Any) -> Any:
    """The plan with the field at `path`, as `grid.psi`, changed."""
    name, _, rest = path.partition(".")
    held = replaced(getattr(plan, name), rest, value) if rest else value
    return dataclasses.replace(plan, **{name: held})


def paths(plan: Any) -> set[str]:
    """All fields, those of sections by their path; a recipe is one value, which goes on as a whole."""
    found = set()
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        section = dataclasses.is_dataclass(value) and not isinstance(value, Recipe | GanRecipe)
        found |= {f"{field.name}.{inner}" for inner in paths(value)} if section else {field.name}
    return found


def shown(value: Any) -> Any:
    """A value as it is compared: tensors by their bytes, what is neither data nor settings left out."""
    if isinstance(value, Tensor):
        return tensor_sha256(value)
    if isinstance(value, LabelledImages | gold_examples.Examples):
        return value.name, value.sha256, value.num_classes
    if isinstance(value, Stream):
        return f"stream of {value.images}", shown(value.head)
    if isinstance(value, dict):
        return {key: shown(held) for key, held in value.items()}
    if isinstance(value, tuple | list):
        return [shown(held) for held in value]
    plain = isinstance(value, str | int | float | bool | None) or dataclasses.is_dataclass(value)
    return value if plain and not isinstance(value, type) else None


def check_every_field(plan: Any, changes: Changes, trace: Callable[[Any], Trace]) -> None:
    assert set(changes) == paths(plan), "a field without a changed value, or a value without a field"
    base = trace(plan)
    assert base == trace(plan)
    blind = [path for path, value in changes.items() if trace(replaced(plan, path, value)) == base]
    assert not blind, f"nothing depends on {blind}"


def pictures(n: int, size: int = 32, classes: int = 4) -> LabelledImages:
    images = torch.randint(0, 256, (n, 3, size, size), generator=rng(n, "pictures"), dtype=torch.uint8)
    return LabelledImages(images, torch.arange(n) % classes, classes, f"pictures-{n}")


class Writer:
    """`spy(name, does)` is a function that writes down what it is given and returns what `does` returns."""

    def __init__(self) -> None:
        self.trace: Trace = []

    def spy(self, name: str, does: Callable[..., Any] = lambda *args, **options: None) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            options.pop("folder", None)
            self.trace.append((name, shown(list(args)), shown(options)))
            return does(*args, **options)

        return call


# gan bench

BENCH = BenchPlan(
    data="here",
    imbalances=(1, 2),
    seeds=(0, 1),
    methods={"plain": {}, "balanced": {"balance": 5.0}},
    gan={"width": 4},
    samples=20,
    n_max=4,
)
BENCH_CHANGES: Changes = {
    "data": "there",
    "imbalances": (1, 4),
    "seeds": (0, 2),
    "methods": {"plain": {"d_steps": 2}, "balanced": {"balance": 5.0}},
    "gan": {"width": 8},
    "classifier": Recipe(depth=8),
    "annotator": Recipe(depth=8),
    "cas": Recipe(),
    "test": "there",
    "size": 16,
    "kind": "step",
    "n_max": 5,
    "samples": 21,
    "reference": 7,
}


@pytest.fixture
def bench_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[BenchPlan], Trace]:
    class Trained:
        counts = torch.ones(4)

        def __init__(self, writer: Writer) -> None:
            self.sample = writer.spy("sample", lambda n, seed: (torch.zeros(n, 3, 8, 8), None))

    def trace(plan: BenchPlan) -> Trace:
        writer = Writer()
        for name, does in {
            "load_data": lambda spec, train=True, **_: pictures(24 if train else 12),
            "train_classifier": None,
            "train_generator": lambda *args, **options: Trained(writer),
            "Judge": lambda *args, **options: SimpleNamespace(score=writer.spy("score", lambda *_: {}), annotator=None),
            "by_class": lambda *args: torch.zeros(1),
            "save_grid": None,
        }.items():
            monkeypatch.setattr(bench, name, writer.spy(name, does or (lambda *args, **options: None)))
        monkeypatch.setattr(bench, "_headline", lambda line: "")
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        done = bench.run_bench(plan, run, device="cpu")
        done.check()
        return writer.trace

    return trace


def test_every_field_of_a_benchmark(bench_trace: Callable[[BenchPlan], Trace]) -> None:
    check_every_field(BENCH, BENCH_CHANGES, bench_trace)


def test_the_annotator_has_a_seed_that_no_classifier_in_the_loop_has(
    bench_trace: Callable[[BenchPlan], Trace],
) -> None:
    calls = [entry[2] for entry in bench_trace(BENCH) if entry[0] == "train_classifier"]
    (annotator,) = {options["seed"] for options in calls if "test" in options}
    assert annotator == 2 and {options["seed"] for options in calls if "test" not in options} == {0, 1}


# gan gold

GOLD = parse(
    GoldPlan,
    """
seeds = [0]
data = { spec = "blobs", points = 60 }
networks = { kind = "points", width = 2, latent_dim = 2 }
training = { images = 64, batch = 16 }
fitting = { epochs = 1, samples = 50 }
rejection = { percentiles = [50], per_class = 6, batch = 10, calibration = 50 }
active = { init = 2, query = 1, images = 32, rounds = 1, checks = 2, validation = 6 }
""",
    "here",
)
GOLD_CHANGES: Changes = {
    "data.points": 66,
    "networks.width": 4,
    "networks.latent_dim": 3,
    "training.images": 80,
    "training.batch": 8,
    "training.lr": 1e-3,
    "training.fake_class": 0.2,
    "training.beta": 0.5,
    "training.start": 0.25,
    "fitting.epochs": 2,
    "fitting.samples": 60,
    "fitting.batch": 64,
    "fitting.lr": 1e-2,
    "fitting.step": 10,
    "seeds": (1,),
    "reweighting": False,
    "rejection.percentiles": (10,),
    "rejection.per_class": 7,
    "rejection.batch": 11,
    "rejection.calibration": 60,
    "rejection.tries": 9000,
    "active.init": 4,
    "active.query": 2,
    "active.images": 48,
    "active.rounds": 2,
    "active.checks": 1,
    "active.validation": 8,
    "active.fake_class": 0.5,
    "active.labelled_share": 0.75,
    "active.balanced": True,
}
OF_IMAGES: Changes = {"data.spec": "there", "data.test": "there", "data.resize": 36, "data.test_only": True}


@pytest.fixture
def gold_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[GoldPlan], Trace]:
    calibrate, accepted, choose = experiment.calibrate, experiment.rejection_samples, active.choose

    def fitted(source: Any, test: Any, fitting: Any, *, seed: int, writer: Writer) -> Any:
        writer.trace.append(("samples", shown(source(5, rng(seed, "spy")))))
        return {"fitting-capacity": {"value": 0.5}}

    def taught(g: nn.Module, d: nn.Module, real: Any, settings: TrainSettings, writer: Writer, **given: Any) -> None:
        g.train()
        d.train()
        writer.trace.append(("real", shown(real(16, rng(0, "spy")))))

    def judged(g: nn.Module, d: nn.Module, *args: Any, does: Any, **options: Any) -> Any:
        assert not g.training and not d.training, "batch statistics and dropout are of training"
        return does(g, d, *args, **options)

    def trace(plan: GoldPlan) -> Trace:
        writer = Writer()
        load = lambda spec, train=True, size=None, **_: pictures(24 if train else 12, size)  # noqa: E731
        monkeypatch.setattr(gold_examples, "load_data", writer.spy("load_data", load))
        monkeypatch.setattr(training, "train_gan", writer.spy("train_gan", partial(taught, writer=writer)))
        monkeypatch.setattr(experiment.capacity, "capacity_figure", writer.spy("fit", partial(fitted, writer=writer)))
        monkeypatch.setattr(experiment, "calibrate", writer.spy("calibrate", partial(judged, does=calibrate)))
        monkeypatch.setattr(experiment, "rejection_samples", writer.spy("reject", partial(judged, does=accepted)))
        monkeypatch.setattr(active, "choose", writer.spy("choose", choose))
        monkeypatch.setattr(active.Best, "offer", lambda *args: None)
        monkeypatch.setattr(active.Best, "restore", lambda *args: None)
        done = experiment.run(plan, tmp_path / str(len(list(tmp_path.iterdir()))), device="cpu")
        done.check()
        return writer.trace

    return trace


def test_every_field_of_golds_experiments(gold_trace: Callable[[GoldPlan], Trace]) -> None:
    images = replaced(replaced(GOLD, "networks.kind", "grey"), "data.spec", "here")
    images = replaced(replaced(images, "active", None), "rejection", None)
    base = gold_trace(images)
    blind = [path for path, value in OF_IMAGES.items() if gold_trace(replaced(images, path, value)) == base]
    assert not blind
    assert gold_trace(replaced(images, "networks.kind", "colour")) != base
    assert set(GOLD_CHANGES) | set(OF_IMAGES) | {"networks.kind"} == paths(GOLD)
    base = gold_trace(GOLD)
    assert base == gold_trace(GOLD)
    blind = [path for path, value in GOLD_CHANGES.items() if gold_trace(replaced(GOLD, path, value)) == base]
    assert not blind, f"nothing depends on {blind}"


def test_active_learning_chooses_by_validation_and_reports_on_the_test_set(
    gold_trace: Callable[[GoldPlan], Trace],
) -> None:
    fits = [args[1] for name, args, *_ in gold_trace(replaced(GOLD, "rejection", None)) if name == "fit"]
    test = shown(gold_examples.blobs(60, seed=1))
    # real images, two GANs, then for both strategies and both trainings two checks and a report
    assert [fit == test for fit in fits] == [True] * 3 + [False, False, True] * 4


def test_a_generator_is_in_eval_mode_when_its_samples_teach() -> None:
    generator = experiment.networks("grey", width=2, latent_dim=2).generator(3, 0).train()
    x, _ = experiment.capacity.of_generator(generator)(4, rng(0))
    assert not generator.training and torch.equal(x, experiment.capacity.of_generator(generator)(4, rng(0))[0])


def test_the_published_momentum_and_rate_of_golds_gans(gold_trace: Callable[[GoldPlan], Trace]) -> None:
    settings = [entry[1][3] for entry in gold_trace(GOLD) if entry[0] == "train_gan"]
    assert all(each.betas == (0.5, 0.999) and each.lr_g == each.lr_d == GOLD.training.lr for each in settings)
    assert {each.fake_auxiliary for each in settings} == {GOLD.training.fake_class, 0.01}  # active learning's own
    weights = [each.fake_weight for each in settings if each.fake_weight]
    assert weights == [training.Reweighting(32, GOLD.training.beta)]


# gan classify

SYNTHETIC = parse(
    SyntheticPlan,
    """
data = "here"
images = 16
[grid]
modes = ["fixed"]
tricks = ["none", "transform", "filter", "truncation"]
threshold = 0.0
tries = 200
[ensembles]
sizes = [2]
methods = ["A_mu"]
tricks = "none"
shares = [[0.75, 0.25]]
[samples]
images = 24
pairs = 3
figure = 2
figure_classes = 2
""",
    "here",
)
SYNTHETIC_CHANGES: Changes = {
    "data": "there",
    "test": "there",
    "size": 16,
    "root": "/elsewhere",
    "num_classes": 3,
    "seeds": (1,),
    "images": 20,
    "gan": GanRecipe(labels="projection", width=4),
    "classifier": Recipe(batch=7),
    "grid.modes": ("on-the-fly",),
    "grid.tricks": ("none", "transform", "filter"),
    "grid.psi": 0.5,
    "grid.threshold": 0.15,
    "grid.tries": 199,
    "grid.pad": 2,
    "ensembles.sizes": (3,),
    "ensembles.methods": ("B",),
    "ensembles.tricks": "transform",
    "ensembles.shares": ((0.25, 0.75),),
    "samples.images": 20,
    "samples.pairs": 2,
    "samples.figure": 3,
    "samples.figure_classes": 3,
}


class Coloured(GeneratorNetwork):
    """Pixels that show the latents, so that a trace tells which were drawn."""

    def __init__(self, member: int) -> None:
        super().__init__()
        self.latent_dim, self.size, self.num_classes = 2, 32, 10
        self.shift = nn.Parameter(torch.tensor(float(member)))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return pixels(z + self.shift)


def pixels(z: Tensor) -> Tensor:
    return z.mean(1).sigmoid().view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


@pytest.fixture
def synthetic_trace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_victim: Victim
) -> Callable[[SyntheticPlan], Trace]:
    keep = synthetic.ClassifierFilter

    def taught(data: Any, recipe: Recipe, writer: Writer, test: Any, **options: Any) -> Outcome:
        fresh = [] if isinstance(data, LabelledImages) else list(data.batches(0))
        writer.trace.append(("shown", shown([batch for pair in fresh for batch in pair])))
        return Outcome(tiny_victim, 0.5, 1, 0.5, 2)

    def trace(plan: SyntheticPlan) -> Trace:
        writer = Writer()
        for name, does in {
            "load_data": lambda spec, train=True, **_: pictures(40 if train else 20, 32, 10),
            "train_on": partial(taught, writer=writer),
            "train_ensemble": lambda data, n, *args, **options: [Coloured(member) for member in range(n)],
            "ClassifierFilter": keep,
        }.items():
            monkeypatch.setattr(synthetic, name, writer.spy(name, does))
        for name in ("draw_features", "draw_weights"):
            monkeypatch.setattr(synthetic_table, name, writer.spy(name))
        weights = lambda data, *args: torch.ones(len(data))  # noqa: E731
        monkeypatch.setattr(synthetic_table, "missed", writer.spy("missed", weights))
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        done = synthetic.run_plan(plan, run, device="cpu", say=lambda text: None)
        done.check()
        synthetic_table.draw_figures(plan, run, device="cpu", precision="fp32")
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in synthetic.collect(plan, run)]
        return [*writer.trace, *(("row", row) for row in rows if row["kind"] == "source")]

    return trace


def test_every_field_of_synthetic_training_sets(synthetic_trace: Callable[[SyntheticPlan], Trace]) -> None:
    check_every_field(SYNTHETIC, SYNTHETIC_CHANGES, synthetic_trace)


def test_only_real_images_are_augmented_by_the_classifiers_recipe(
    synthetic_trace: Callable[[SyntheticPlan], Trace],
) -> None:
    taught = [entry[1] for entry in synthetic_trace(SYNTHETIC) if entry[0] == "train_on"]
    real = [recipe for (name, *_), recipe in taught if name == "pictures-40"]
    generated = [recipe for (name, *_), recipe in taught if name != "pictures-40"]
    assert all(recipe == SYNTHETIC.classifier and recipe.pad > 0 for recipe in real)
    assert len(generated) == len(SYNTHETIC.cells())
    assert all((recipe.pad, recipe.flip) == (0, False) for recipe in generated)


@pytest.fixture
def seed_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> synthetic.SeedWork:
    """One seed of the plan with generators that are not trained."""
    monkeypatch.setattr(synthetic, "load_data", lambda *args, **options: pictures(40, 32, 10))
    monkeypatch.setattr(synthetic, "train_ensemble", lambda data, n, *args, **options: [Coloured(k) for k in range(n)])
    return synthetic.SeedWork(replaced(SYNTHETIC, "grid.psi", 0.5), 0, tmp_path, "cpu", "fp32")


def test_truncation_cuts_the_latents_of_its_cells_alone(
    seed_work: synthetic.SeedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest: list[float] = []
    monkeypatch.setattr(Coloured, "forward", lambda self, z, y: (largest.append(float(z.abs().max())), pixels(z))[1])
    for tricks in ((), ("truncation",)):
        seed_work.source(ClassifierCell("fixed", tricks)).batch(100, rng(0))
    assert largest[0] > 1 and 0.4 < largest[1] <= 0.5


def test_shares_are_those_of_the_cell(seed_work: synthetic.SeedWork) -> None:
    assert [seed_work.source(cell).shares for cell in SYNTHETIC.cells()] == [None] * 5 + [(0.75, 0.25)]
    assert len(seed_work.source(SYNTHETIC.cells()[-1]).samples) == 2
