"""GOLD against its baselines: every row with every seed, a line of results.jsonl each, and none measured twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from ...errors import UsageError
from ...experiments.cells import Cells, Experiment, Lines, Record, failed
from ...experiments.jobs import PerProcess
from ...gan.sampling import samples
from ...runfolder import RunFolder
from ...runtime import resolve_device, rng
from . import capacity
from .active import QueryPool, Strategy, learn
from .examples import Examples, load_examples, split_evenly
from .networks import GoldDiscriminator, GoldGenerator, Networks, networks
from .plan import GoldPlan
from .rejection import calibrate, rejection_samples
from .training import train

PARTS = ("reweighting", "rejection", "active")
STRATEGIES: tuple[Strategy, ...] = ("random", "gold")
KEYS = ("part", "row", "seed", "labels", "check")
Make = Callable[[], tuple[capacity.Sampler, int | None]]  # a sampler, and how many it has at most
Task = tuple[str, int]  # what may run at the same time: "shared" (its rows share a GAN) or a strategy, and a seed


def run(
    plan: GoldPlan,
    out: str | Path,
    *,
    root: str | Path | None = None,
    parts: tuple[str, ...] = PARTS,
    device: str | torch.device = "auto",
    jobs: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Experiment:
    """Measures what is missing of the plan in the folder `out`; `table.results_of` has the records.

    parts: of PARTS; those without a section in the plan are left out. jobs: processes. say: told of every result.
    Raises UsageError for unknown parts, and when `out` holds another plan or other data.
    """
    if unknown := set(parts) - set(PARTS):
        raise UsageError(f"no part {sorted(unknown)[0]!r}; expected {', '.join(PARTS)}")
    asked = tuple(part for part in PARTS if part in parts and getattr(plan, part))
    bench = GoldBench(plan, Path(out), root, asked, resolve_device(device))
    left = len(bench.real) - (plan.active.validation if plan.active else 0)
    if plan.active and "active" in asked and plan.active.labels > left:
        raise UsageError(
            f"{plan.active.labels} labels are to be asked, {left} examples are there; lower query or rounds"
        )
    fixed = {name: section for name, section in asdict(plan).items() if name != "seeds"}
    folder = RunFolder(out, {**fixed, **bench.about})
    total = len(plan.seeds) * _rows(plan, asked)
    experiment = Experiment(Lines(folder.path / "results.jsonl"), KEYS, _headline, total=total, say=say)
    kinds = ("shared", *(STRATEGIES if "active" in asked else ()))
    experiment.run(bench.measure, [(kind, seed) for seed in plan.seeds for kind in kinds], jobs)
    return experiment


def _rows(plan: GoldPlan, parts: tuple[str, ...]) -> int:
    """Records of one seed."""
    rows = 1 + 2 * ("reweighting" in parts)
    if plan.rejection and "rejection" in parts:
        rows += 1 + len(plan.rejection.percentiles)
    if plan.active and "active" in parts:
        checks = plan.active.checks if plan.active.checks > 1 else 0
        rows += len(STRATEGIES) * (plan.active.rounds + 1) * (1 + checks)
    return rows


def _headline(record: Record) -> str:
    labels = "" if record["labels"] is None else f", {record['labels']} labels"
    value = "" if failed(record) else f": {record['value']:.4f}"
    return f"{record['part']}: {record['row']}{labels}, seed {record['seed']}{value}"


@dataclass
class GoldBench(PerProcess):
    """The measurements of an experiment: each makes its samples only if its record is missing."""

    plan: GoldPlan
    place: Path
    root: str | Path | None
    parts: tuple[str, ...]
    device: torch.device

    @cached_property
    def _examples(self) -> tuple[Examples, Examples]:
        real, test = load_examples(self.plan.data, self.root)
        return real.to(self.device), test.to(self.device)

    @property
    def real(self) -> Examples:
        return self._examples[0]

    @property
    def test(self) -> Examples:
        return self._examples[1]

    @cached_property
    def about(self) -> dict[str, str]:
        real, test = self._examples
        return {"trained_on": real.name, "trained_sha256": real.sha256, "test_sha256": test.sha256}

    @cached_property
    def networks(self) -> Networks:
        nets = self.plan.networks
        return networks(nets.kind, width=nets.width, latent_dim=nets.latent_dim)

    def measure(self, task: Task, cells: Cells) -> None:
        """Everything of a task that is missing."""
        kind, seed = task
        if kind != "shared":
            self._active(cells, seed, "gold" if kind == "gold" else "random")
            return
        # The classifier trained on the real images, which the samples are to stand in for.
        real: Make = lambda: (capacity.of_set(self.real), len(self.real))  # noqa: E731
        self._attempt(cells, _about("real images", "training set", seed), real)
        if "reweighting" in self.parts:
            for row in ("base", "re-weighted"):
                self._attempt(cells, _about("re-weighting", row, seed), partial(self._fresh, row, seed))
        if self.plan.rejection and "rejection" in self.parts:
            for percentile in (None, *self.plan.rejection.percentiles):
                row = "none" if percentile is None else f"p = {percentile:g}"
                self._attempt(cells, _about("rejection", row, seed), partial(self._accepted, percentile, row, seed))

    def _accepted(self, percentile: float | None, row: str, seed: int) -> tuple[capacity.Sampler, int]:
        """A set of as many samples of each class: the base GAN's own, or those that rejection sampling keeps."""
        settings = self.plan.rejection
        assert settings is not None
        g, d = self._gan("base", seed)
        g.eval()
        d.eval()
        if percentile is None:
            with torch.no_grad():
                parts = [
                    samples(g, settings.per_class, rng(seed, "gold-draw", label), labels=label)
                    for label in range(self.real.num_classes)
                ]
            x, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        else:
            x, labels = rejection_samples(
                g,
                d,
                settings.per_class,
                percentile=percentile,
                calibration=calibrate(g, d, samples=settings.calibration, seed=seed),
                batch=settings.batch,
                tries=settings.tries,
                seed=seed,
            )
        return capacity.of_set(Examples(x, labels, self.real.num_classes, row)), len(x)

    def _active(self, cells: Cells, seed: int, strategy: Strategy) -> None:
        settings = self.plan.active
        assert settings is not None
        whole = _about("active", strategy, seed, settings.labels)
        if cells.key(whole) not in cells.held:
            with cells.failing(whole):
                self._learn(cells, seed, strategy)

    def _learn(self, cells: Cells, seed: int, strategy: Strategy) -> None:
        settings = self.plan.active
        assert settings is not None
        checking, rest = split_evenly(self.real, settings.validation, seed=seed, key="gold-validation")
        validation, train_part = self.real.subset(checking).centred(), self.real.subset(rest)
        first, _ = split_evenly(train_part, settings.init, seed=seed, key="gold-init")

        def measured(g: Any, labels: int, check: int | None, test: Examples) -> float:
            about = _about("active", strategy, seed, labels, check)
            make: Make = lambda: (capacity.of_generator(g), None)  # noqa: E731
            return float(cells.record(about, partial(self._figure, make, seed, test))["value"])

        def validate(turn: int, check: int, g: Any) -> float:
            return measured(g, settings.init + turn * settings.query, check, validation)

        def report(turn: int, labels: int, g: Any) -> None:
            measured(g, labels, None, self.test)

        learn(
            QueryPool(train_part, first),
            self.networks,
            self.plan.training,
            settings,
            strategy,
            validate=validate,
            report=report,
            folder=self.place / f"active-{strategy}-seed{seed}",
            about={**self.about, **asdict(settings)},
            seed=seed,
            device=self.device,
        )

    def _fresh(self, row: str, seed: int) -> tuple[capacity.Sampler, None]:
        return capacity.of_generator(self._gan(row, seed)[0]), None

    def _gan(self, row: str, seed: int) -> tuple[GoldGenerator, GoldDiscriminator]:
        """Trained, or read from its folder."""
        classes = self.real.num_classes
        g, d = self.networks.generator(classes, seed), self.networks.discriminator(classes, seed)
        plan = self.plan.training
        train(
            *(g, d, self.real.batch, plan.settings(plan.reweighting() if row == "re-weighted" else None)),
            folder=self.place / f"gan-{row}-seed{seed}",
            about=self.about,
            images=plan.images,
            seed=seed,
            device=self.device,
        )
        return g, d

    def _attempt(self, cells: Cells, about: Record, make: Make) -> None:
        cells.attempt(about, partial(self._figure, make, about["seed"], self.test))

    def _figure(self, make: Make, seed: int, test: Examples) -> Record:
        """Fitting capacity on `test` of what `make` returns."""
        source, size = make()
        fitting = self.plan.fitting if size is None else replace(self.plan.fitting, samples=size)
        return capacity.capacity_figure(source, test, fitting, seed=seed)["fitting-capacity"]


def _about(part: str, row: str, seed: int, labels: int | None = None, check: int | None = None) -> Record:
    return {"part": part, "row": row, "seed": seed, "labels": labels, "check": check}
