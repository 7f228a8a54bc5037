"""Every field of GOLD's training and of its active learning changes the networks, and the paper's numbers are there."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.wiring import Change, both, cases
from uapgen.gan import non_saturating
from uapgen.longtail.gold import Active, GoldTraining, QueryPool, Reweighting, learn, networks, train
from uapgen.longtail.gold.examples import blobs, split_evenly
from uapgen.runtime import module_sha256

NETS = networks("points", width=2, latent_dim=3)
SMALL = GoldTraining(images=64, batch=16, lr=1e-3)
QUERIES = Active(init=4, query=2, images=64, rounds=2, checks=2, validation=10)

FIELDS = {
    "images": Change(96),
    "batch": Change(32),
    "lr": Change(2e-3),
    "fake_class": Change(0.5),
    "beta": Change(0.5),
    "start": Change(0.25),
}
ACTIVE = {
    "query": Change(3),
    "images": Change(96),
    "rounds": Change(1),
    "checks": Change(4),
    "fake_class": Change(0.5),
    "labelled_share": Change(0.5),
    "balanced": Change(True),
}
BEFORE = dict.fromkeys(("init", "validation"), "the experiment splits the data by it, before `learn` is called")


@cache
def trained(plan: GoldTraining) -> str:
    g, d = NETS.generator(2, 0), NETS.discriminator(2, 0)
    with tempfile.TemporaryDirectory() as folder:
        train(
            *(g, d, blobs(60).batch, plan.settings(plan.reweighting())),
            folder=Path(folder),
            about={},
            images=plan.images,
            seed=0,
            device=torch.device("cpu"),
        )
    return module_sha256(g)


@pytest.mark.parametrize(("field", "change"), cases(GoldTraining, FIELDS))
def test_every_field_of_a_training_changes_the_generator(field: str, change: Change) -> None:
    one, other = both(SMALL, field, change)
    assert trained(one) != trained(other)


def test_the_settings_are_the_papers() -> None:
    settings = GoldTraining(images=1).settings()
    assert (settings.loss, settings.betas, settings.lr_g, settings.lr_d) == (non_saturating, (0.5, 0.999), 2e-4, 2e-4)
    assert (settings.batch, settings.fake_auxiliary, settings.fake_weight) == (128, 0.1, None)
    assert GoldTraining(images=1).settings(fake_class=0.01).fake_auxiliary == 0.01
    assert GoldTraining(images=200, start=0.25, beta=2.0).reweighting() == Reweighting(50, 2.0)
    assert Reweighting(50, 2.0).describe() == "gold(beta=2, start=50)"


@cache
def learnt(active: Active) -> tuple[str, ...]:
    """What is reported: the generator's hash after each round."""
    data, hashes = blobs(60), []
    pool = QueryPool(data, split_evenly(data, active.init, seed=0, key="init")[0])
    with tempfile.TemporaryDirectory() as folder:
        learn(
            *(pool, NETS, SMALL, active, "gold"),
            validate=lambda turn, check, g: -float(check),
            report=lambda turn, labels, g: hashes.append(f"{labels} {module_sha256(g)}"),
            folder=Path(folder),
            about={},
            seed=0,
            device=torch.device("cpu"),
        )
    return tuple(hashes)


@pytest.mark.parametrize(("field", "change"), cases(Active, ACTIVE, BEFORE))
def test_every_field_of_active_learning_changes_what_is_reported(field: str, change: Change) -> None:
    one, other = both(QUERIES, field, change)
    assert learnt(one) != learnt(other)


def test_the_factor_of_the_class_loss_is_that_of_active_learning() -> None:
    """Not the training's own, which is ten times the paper's here."""
    with tempfile.TemporaryDirectory() as folder:
        data = blobs(60)
        pool = QueryPool(data, torch.arange(4))
        learn(
            *(pool, NETS, SMALL, dataclasses.replace(QUERIES, rounds=0, checks=1), "gold"),
            validate=lambda turn, check, g: 0.0,
            report=lambda turn, labels, g: None,
            folder=Path(folder),
            about={},
            seed=0,
            device=torch.device("cpu"),
        )
        assert '"fake_class": 0.01' in (Path(folder) / "round0" / "options.json").read_text()
