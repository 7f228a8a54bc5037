"""Every field of a classifier's recipe changes its weights."""

from __future__ import annotations

import tempfile
from functools import cache

import pytest

from tests.longtail.brightness import bright
from tests.wiring import Change, both, cases
from uapgen.longtail.classifier import train_classifier
from uapgen.longtail.classifier.recipe import Recipe

SMALL = Recipe(depth=8, width=2, epochs=2, batch=16, warmup=1, decay_at=(0.5, 1.0), decays=(0.1, 0.01), flip=True)

FIELDS = {
    "depth": Change(14),
    "width": Change(3),
    "loss": Change("ce"),
    "deferred": Change(False),
    "epochs": Change(3),
    "batch": Change(12),
    "lr": Change(0.05),
    "momentum": Change(0.5),
    "weight_decay": Change(1e-2),
    "warmup": Change(2),
    "decay_at": Change((1.0, 1.0)),
    "decays": Change((0.5, 0.01)),
    "pad": Change(0),
    "flip": Change(False),
}


@cache
def trained(recipe: Recipe) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return train_classifier(bright(40, [16, 10, 8, 4, 2]), recipe, folder=folder, device="cpu").weights_sha256


@pytest.mark.parametrize(("field", "change"), cases(Recipe, FIELDS))
def test_every_field_changes_the_classifier(field: str, change: Change) -> None:
    one, other = both(SMALL, field, change)
    assert trained(one) != trained(other)


def test_each_loss_is_another() -> None:
    recipes = [Recipe(**{**SMALL.__dict__, "loss": loss}) for loss in ("ce", "focal", "ldam")]
    assert len({trained(recipe) for recipe in recipes}) == 3


def test_who_does_not_say_asks_the_data_whether_a_mirrored_image_is_of_its_class() -> None:
    assert bright(40).flips
    asks = Recipe(**{**SMALL.__dict__, "flip": None})
    assert trained(asks) == trained(SMALL)
