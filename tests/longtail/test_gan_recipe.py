"""What a recipe's fields do: each changes the generator's bytes; and a window that closes too late is said."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.longtail.brightness import bright, brightness_victim
from tests.wiring import Change, both, cases
from uapgen.errors import UsageError
from uapgen.gan import ClassBalance, hinge, non_saturating, relativistic, relativistic_average
from uapgen.longtail.gan_recipe import GanRecipe, extra_losses
from uapgen.longtail.generator import train_generator
from uapgen.runtime import module_sha256

SMALL = GanRecipe(width=2, latent_dim=8, images=48, batch=8, lr=1e-3, ema_halflife=20, ema_start=16, window=16)
BALANCED = {"balance": 5.0}
CONDITIONAL = {"labels": "projection"}

FIELDS = {
    "network": Change("resgan"),
    "labels": Change("auxiliary"),
    "loss": Change("hinge"),
    "width": Change(3),
    "latent_dim": Change(12),
    "images": Change(56),
    "batch": Change(12),
    "lr": Change(2e-3),
    "lr_d": Change(2e-3),
    "beta1": Change(0.0),
    "beta2": Change(0.9),
    "d_steps": Change(2),
    "augment": Change(True),
    "precision": Change("bf16"),
    "ema_halflife": Change(40),
    "ema_start": Change(32),
    "balance": Change(2.0, BALANCED),
    "effective": Change(False, BALANCED),
    "window": Change(24, BALANCED),
    "alpha": Change(0.9, BALANCED),
    "first_window": Change(16.0, BALANCED),
    "gsr": Change(0.5, CONDITIONAL),
    "noise": Change(0.5, {"network": "biggan", **CONDITIONAL}),
}


@cache
def trained(recipe: GanRecipe) -> str:
    data = bright(40, [16, 10, 8, 4, 2])
    with tempfile.TemporaryDirectory() as folder:
        made = train_generator(data, recipe, folder=folder, classifier=brightness_victim(), device="cpu")
    return module_sha256(made.network)


@pytest.mark.parametrize(("field", "change"), cases(GanRecipe, FIELDS))
def test_every_field_changes_the_generator(field: str, change: Change) -> None:
    one, other = both(SMALL, field, change)
    assert trained(one) != trained(other)


@pytest.mark.parametrize(
    ("name", "loss"),
    [("rsgan", relativistic), ("ragan", relativistic_average), ("hinge", hinge), ("ns", non_saturating)],
)
def test_each_loss_is_the_one_of_its_name(name: str, loss: Any) -> None:
    assert GanRecipe(loss=name).training().loss is loss


def test_the_regulariser_has_the_numbers_of_the_recipe() -> None:
    recipe = dataclasses.replace(SMALL, balance=3.0, effective=False, window=24, alpha=0.75, first_window=7.0)
    data = bright(40)
    balance = extra_losses(data, recipe, brightness_victim(), recipe.generator(data.counts(), 32, 0), 0)["balance"]
    assert isinstance(balance, ClassBalance)
    assert (balance.weight, balance.effective) == (3.0, False)
    assert (balance.frequency.alpha, balance.frequency.update_every) == (0.75, 24)
    assert balance.frequency.counts.tolist() == [7.0] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta1": 1.0}, "betas"),
        ({"d_steps": 0}, "d_steps 0"),
        ({"ema_halflife": 0.0}, "half-life 0"),
        ({"ema_start": -1}, "ema_start -1"),
        ({"lr": float("inf")}, "learning rates"),
    ],
)
def test_numbers_that_make_no_training_are_refused_by_the_recipe(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SMALL, **change).check()


@pytest.mark.parametrize(("window", "warned"), [(16, False), (40, False), (41, True), (48, True), (512_000, True)])
def test_a_window_that_closes_too_late_is_said(window: int, warned: bool) -> None:
    """Six batches of 8: weights that are known after the fifth are used once, after the sixth never."""
    recipe = dataclasses.replace(SMALL, window=window, **BALANCED)
    reason = recipe.never_weighs()
    assert (reason is not None) == warned
    if reason:
        assert f"window of {window} images" in reason and "last batch of 48" in reason
    assert dataclasses.replace(recipe, balance=0.0).never_weighs() is None
    assert dataclasses.replace(recipe, effective=False).never_weighs() is None


def test_the_warning_is_true() -> None:
    """Where it is given, the run is that of the plain diversity loss; where not, it is not."""
    late, in_time = (dataclasses.replace(SMALL, window=window, first_window=1.0, **BALANCED) for window in (41, 40))
    with pytest.warns(UserWarning, match="plain diversity loss"):
        of_late = trained(late)
    assert of_late == trained(dataclasses.replace(late, effective=False))
    assert trained(in_time) != trained(dataclasses.replace(in_time, effective=False))


def test_the_command_prints_the_warning(tmp_path: Path) -> None:
    def gan(*args: str) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
        data = ("--data", "digits", "--size", "16", "--imbalance", "1", "--n-max", "4", "--device", "cpu")
        command = [sys.executable, "-m", "uapgen", "gan", args[0], *data, *args[1:]]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    small = [text for field in ("depth=8", "width=2", "epochs=1") for text in ("--set", field)]
    assert gan("classifier", *small, "-o", "loop").returncode == 0
    fields = [text for field in ("images=16", "batch=8", "width=2", "balance=3") for text in ("--set", field)]
    done = gan("train", *fields, "--classifier", "loop", "-o", "run")
    assert done.returncode == 0, done.stderr
    assert "window of 512000 images does not close before the last batch of 16" in done.stderr
