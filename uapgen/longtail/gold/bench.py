"""The measurements of an experiment: each makes its samples only if its line is missing from results.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import UsageError
from ...experiments.records import Lines
from ...runtime import rng
from . import capacity
from .active import QueryPool, Strategy, learn
from .examples import Examples, split_evenly
from .networks import GoldDiscriminator, GoldGenerator, networks
from .plan import Plan
from .rejection import calibrate, generated, rejection_samples
from .training import reweighting, train

Record = dict[str, Any]


class Bench:
    """The experiment with everything that its parts share.

    held: the lines of results.jsonl, default read now; a read while another process appends could cut off its line.
    """

    def __init__(
        self,
        plan: Plan,
        real: Examples,
        test: Examples,
        place: Path,
        about: dict[str, Any],
        device: torch.device,
        say: Callable[[str], None],
        held: Sequence[Record] | None = None,
    ) -> None:
        self.plan, self.real, self.test, self.place, self.about = plan, real, test, place, about
        self.device, self.say, self.results = device, say, Lines(place / "results.jsonl")
        self.networks = networks(plan.networks.kind, width=plan.networks.width, latent_dim=plan.networks.latent_dim)
        self.held = {_key(record): record for record in (self.results.read() if held is None else held)}

    def reference(self, seed: int) -> None:
        """The classifier trained on the real images, which the samples are to stand in for."""
        self._measure("real images", "training set", seed, lambda: (capacity.of_set(self.real), len(self.real)))

    def reweighting(self, seed: int) -> None:
        for row in ("base", "re-weighted"):
            self._measure("re-weighting", row, seed, partial(self._fresh, row, seed))

    def rejection(self, seed: int) -> None:
        settings = self.plan.rejection
        assert settings is not None

        def samples(percentile: float | None, row: str) -> tuple[capacity.Sampler, int]:
            g, d = self._gan("base", seed)
            g.eval()
            d.eval()
            if percentile is None:
                with torch.no_grad():
                    parts = [
                        generated(g, settings.per_class, rng(seed, "gold-draw", label), label=label)
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

        for percentile in (None, *settings.percentiles):
            row = "none" if percentile is None else f"p = {percentile:g}"
            self._measure("rejection", row, seed, partial(samples, percentile, row))

    def active(self, seed: int, strategy: Strategy) -> None:
        settings = self.plan.active
        assert settings is not None
        last = settings.init + settings.rounds * settings.query
        if ("active", strategy, seed, last, None) in self.held:
            return
        checking, rest = split_evenly(self.real, settings.validation, seed=seed, key="gold-validation")
        validation, train_part = self.real.subset(checking).centred(), self.real.subset(rest)
        first, _ = split_evenly(train_part, settings.init, seed=seed, key="gold-init")
        if last > len(train_part):
            raise UsageError(
                f"{last} labels are to be asked, {len(train_part)} examples are there; lower query or rounds"
            )

        def validate(turn: int, check: int, g: Any) -> float:
            labels = settings.init + turn * settings.query
            source = capacity.of_generator(g)
            return self._measure("active", strategy, seed, lambda: (source, None), labels, check, validation)

        def report(turn: int, labels: int, g: Any) -> None:
            self._measure("active", strategy, seed, lambda: (capacity.of_generator(g), None), labels)

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
        weight = reweighting(start=int(plan.start * plan.images), beta=plan.beta) if row == "re-weighted" else None
        place = self.place / f"gan-{row}-seed{seed}"
        train(
            *(g, d, self.real.batch, plan),
            folder=place,
            about=self.about,
            fake_weight=weight,
            seed=seed,
            device=self.device,
        )
        return g, d

    def _measure(
        self,
        part: str,
        row: str,
        seed: int,
        make: Callable[[], tuple[capacity.Sampler, int | None]],
        labels: int | None = None,
        check: int | None = None,
        test: Examples | None = None,
    ) -> float:
        """Fitting capacity of what `make` returns, a sampler and how many it has at most; or as it was measured."""
        about = {"part": part, "row": row, "seed": seed, "labels": labels, "check": check}
        if _key(about) not in self.held:
            source, size = make()
            fitting = self.plan.fitting if size is None else replace(self.plan.fitting, samples=size)
            figure = capacity.capacity_figure(source, test or self.test, fitting, seed=seed)["fitting-capacity"]
            self.results.append({**about, **figure})
            self.held[_key(about)] = {**about, **figure}
            self.say(
                f"{part}: {row}{'' if labels is None else f', {labels} labels'}, seed {seed}: {figure['value']:.4f}"
            )
        return float(self.held[_key(about)]["value"])


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("part", "row", "seed", "labels", "check"))
