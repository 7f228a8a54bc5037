"""The classifier of the fitting capacity: every field of `Fitting` changes it, and LeNet sees centred pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.wiring import Change, both, cases
from uapgen.longtail.gold import Fitting, capacity, fitting_capacity, networks, of_generator, of_set
from uapgen.longtail.gold.examples import blobs
from uapgen.runtime import module_sha256

SMALL = Fitting(epochs=2, samples=40, batch=16, lr=1e-3, step=1)
FIELDS = {
    "epochs": Change(3),
    "samples": Change(48),
    "batch": Change(20),
    "lr": Change(2e-3),
    "step": Change(2),
}


def fitted(fitting: Fitting, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    held: list[nn.Module] = []
    make = capacity.mlp
    with monkeypatch.context() as patched:
        patched.setattr(capacity, "mlp", lambda *args: held.append(make(*args)) or held[-1])
        fitting_capacity(of_set(blobs(60)), blobs(12, seed=1), fitting)
    return held[0]


@pytest.mark.parametrize(("field", "change"), cases(Fitting, FIELDS))
def test_every_field_changes_the_classifier(field: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = both(SMALL, field, change)
    assert module_sha256(fitted(one, monkeypatch)) != module_sha256(fitted(other, monkeypatch))


def test_the_optimiser_and_the_decay_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Adam] = []
    rates: list[float] = []

    class Recorded(torch.optim.Adam):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

        def step(self, *args: Any) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step(*args)

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    fitting_capacity(of_set(blobs(60)), blobs(12, seed=1), Fitting(epochs=4, samples=40, batch=40, step=2))
    assert made[0].param_groups[0]["betas"] == (0.5, 0.999)
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_lenet_sees_pixels_from_minus_one_to_one(level: float) -> None:
    net, seen = capacity.lenet(10), []
    first = next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net(torch.full((1, 3, 32, 32), level))
    assert torch.equal(seen[0], torch.full((1, 3, 32, 32), 2 * level - 1))


def test_a_generator_is_sampled_in_eval_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    g, modes = networks("grey", width=4, latent_dim=3).generator(2, 0), []
    g.train()
    forward = g.forward

    def spy(z: Tensor, labels: Tensor | None = None) -> Tensor:
        modes.append(g.training)
        return forward(z, labels)

    monkeypatch.setattr(g, "forward", spy)
    x, labels = of_generator(g)(6, torch.Generator().manual_seed(0))
    assert x.shape == (6, 3, 32, 32) and labels.shape == (6,) and modes == [False]
