"""Adversarial losses against closed forms and against the papers' formulas written out."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from uapgen.gan import AdversarialLoss, hinge, non_saturating, relativistic, relativistic_average

ALL = {"relativistic": relativistic, "average": relativistic_average, "hinge": hinge, "ns": non_saturating}


@pytest.mark.parametrize(
    ("loss", "d", "g"),
    [
        (relativistic, log(2), log(2)),
        (relativistic_average, 2 * log(2), 2 * log(2)),
        (hinge, 2, 0),
        (non_saturating, 2 * log(2), log(2)),
    ],
)
def test_logits_of_zero(loss: AdversarialLoss, d: float, g: float) -> None:
    zero = torch.zeros(5)
    assert float(loss.d_loss(zero, zero)) == pytest.approx(d)
    assert float(loss.g_loss(zero, zero)) == pytest.approx(g)


@pytest.mark.parametrize("loss", [relativistic, relativistic_average])
def test_relativistic_losses_do_not_see_a_common_shift(loss: AdversarialLoss) -> None:
    real, fake = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.1, 0.4, -0.6])
    for part in (loss.d_loss, loss.g_loss):
        assert float(part(real + 7, fake + 7)) == pytest.approx(float(part(real, fake)), rel=1e-5)


def log_sigmoid(x: Tensor) -> Tensor:
    return (1 / (1 + (-x.double()).exp())).log()


def test_formulas_of_the_papers() -> None:
    real, fake = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.1, 0.4, -0.6])
    expected = {
        "relativistic": (-log_sigmoid(real - fake).mean(), -log_sigmoid(fake - real).mean()),
        "average": (
            -log_sigmoid(real - fake.mean()).mean() - log_sigmoid(-(fake - real.mean())).mean(),
            -log_sigmoid(fake - real.mean()).mean() - log_sigmoid(-(real - fake.mean())).mean(),
        ),
        "hinge": ((0.7 + 2.0 + 0.0) / 3 + (1.1 + 1.4 + 0.4) / 3, -(0.1 + 0.4 - 0.6) / 3),
        "ns": (-log_sigmoid(real).mean() - log_sigmoid(-fake).mean(), -log_sigmoid(fake).mean()),
    }
    for name, loss in ALL.items():
        got = float(loss.d_loss(real, fake)), float(loss.g_loss(real, fake))
        assert got == pytest.approx([float(x) for x in expected[name]], rel=1e-5), name


@pytest.mark.parametrize("loss", ALL.values(), ids=ALL.keys())
def test_gradients_push_each_side_its_own_way_and_stay_finite(loss: AdversarialLoss) -> None:
    real, fake = (torch.tensor([0.2, -0.1], requires_grad=True) for _ in range(2))
    loss.d_loss(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    value = loss.g_loss(-far.detach(), far)
    value.backward()
    assert value.isfinite()
    assert far.grad.isfinite().all()
    assert (far.grad <= 0).all()


@pytest.mark.parametrize("loss", ALL.values(), ids=ALL.keys())
def test_the_real_logits_are_declared_when_the_generator_needs_them(loss: AdversarialLoss) -> None:
    fake = torch.tensor([0.5, -0.5])
    differs = float(loss.g_loss(fake + 1, fake)) != float(loss.g_loss(fake - 1, fake))
    assert differs == loss.g_needs_real
    if not loss.g_needs_real:
        assert loss.g_loss(torch.empty(0), fake).isfinite()


def test_pairs_must_match() -> None:
    with pytest.raises(AssertionError, match="paired"):
        relativistic.d_loss(torch.zeros(4), torch.zeros(4, 1))
