"""Rejection sampling: known densities, the bound, quotas, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from uapgen.errors import UapgenError, UsageError
from uapgen.gan.conditional import DiscriminatorNetwork, GeneratorNetwork, Judgement
from uapgen.longtail.gold import Calibration, acceptance, calibrate, calibration, rejection_samples, rejection_scale
from uapgen.runtime import rng

TARGET, PROPOSAL = Normal(0.5, 0.5), Normal(0.0, 1.0)


class Standard(GeneratorNetwork):
    """x = z: N(0,1) for either class."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim, self.size, self.num_classes = 1, 1, 2
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z


class Exact(DiscriminatorNetwork):
    """log TARGET(x) / PROPOSAL(x), and classes that are known for sure; `shift` is added to the logit."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def judge(self, x: Tensor, labels: Tensor | None = None) -> Judgement:
        assert labels is not None
        x = x[:, 0]
        sure = torch.where(torch.arange(2) == labels[:, None], 0.0, -50.0)
        return Judgement(TARGET.log_prob(x) - PROPOSAL.log_prob(x) + self.shift, sure)


def test_exact_densities_move_the_samples_to_the_target() -> None:
    g, d = Standard(), Exact()
    before = g(torch.randn(4000, 1, generator=rng(0)))
    x, labels = rejection_samples(g, d, 2000, percentile=None, calibration=calibrate(g, d, samples=4000))
    assert labels.bincount().tolist() == [2000, 2000]
    for k in range(2):
        mine = x[labels == k]
        assert float(mine.mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2000))  # four standard errors
        assert float(mine.std()) == pytest.approx(0.5, abs=0.04)
    assert abs(float(before.mean())) < 0.1 and float(before.std()) > 0.9


@pytest.mark.parametrize("percentile", [None, 0.0, 10, 50, 100])
def test_acceptance_never_falls_as_the_gap_rises(percentile: float | None) -> None:
    gap = torch.linspace(-60, 3, 500)
    rate = acceptance(gap, 3.0, percentile)
    assert (rate.diff() >= 0).all() and rate.min() >= 0 and rate.max() <= 1
    assert rate[-1] > rate[0]


def test_half_at_the_percentile_and_fewer_as_it_rises() -> None:
    gap = torch.randn(1001, generator=rng(0)) - 4
    for percentile in (10, 50, 90):
        at = gap.quantile(percentile / 100, interpolation="nearest")
        rate = acceptance(gap, float(gap.max()), percentile)
        assert float(rate[gap == at]) == pytest.approx(0.5, abs=0.01)
    means = [float(acceptance(gap, float(gap.max()), p).mean()) for p in (0, 10, 50, 90, 100)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.8


def test_bound_holds_for_every_gap() -> None:
    m = 3 * torch.randn(1000, generator=rng(0))
    q = -torch.rand(1000, generator=rng(1)) * 5
    held = calibration(m, q)
    assert held.scale == pytest.approx(float(rejection_scale(m, q)))
    assert ((m + held.scale * q) <= held.log_bound).all()
    assert held.raised(torch.tensor([100.0])).log_bound == 100
    assert held.raised(torch.tensor([-100.0])) == held


def test_calibration_refuses_what_is_not_finite() -> None:
    with pytest.raises(UapgenError, match="not finite"):
        calibration(torch.tensor([0.0, math.nan]), torch.zeros(2))


@pytest.mark.parametrize("percentile", [-0.1, 100.5, math.nan])
def test_percentile_out_of_range(percentile: float) -> None:
    with pytest.raises(UsageError, match=r"outside 0\.\.100"):
        acceptance(torch.zeros(3), 0.0, percentile)


def test_retries_are_bounded_and_say_how_far_they_came() -> None:
    with pytest.raises(UapgenError, match=r"class 0 has 0 of 5 samples after 3 batches of 10; lower"):
        rejection_samples(
            *(Standard(), Exact(), 5), percentile=None, calibration=Calibration(1.0, 200.0), batch=10, tries=3
        )


def test_topped_up_to_the_quota_over_several_batches() -> None:
    x, labels = rejection_samples(
        *(Standard(), Exact(), 37), percentile=90, calibration=Calibration(1.0, 0.0), batch=10, tries=200
    )
    assert x.shape == (74, 1) and labels.tolist() == [0] * 37 + [1] * 37


@pytest.mark.parametrize("wrong", [{"per_class": 0}, {"batch": 0}, {"tries": 0}])
def test_numbers_below_one(wrong: dict[str, int]) -> None:
    settings: dict[str, Any] = {"per_class": 2, "batch": 4, "tries": 5, **wrong}
    with pytest.raises(UsageError, match="at least 1"):
        rejection_samples(Standard(), Exact(), percentile=50, calibration=Calibration(1.0, 0.0), **settings)


def test_same_seed_same_samples() -> None:
    def take(seed: int) -> Tensor:
        held = Calibration(1.0, 1.0)
        return rejection_samples(Standard(), Exact(), 20, percentile=50, calibration=held, seed=seed)[0]

    assert torch.equal(take(1), take(1))
    assert not torch.equal(take(1), take(2))


class Halved(Exact):
    """The same log-densities, less their largest, in the class part alone, at a third: m = 0, q = gap / 3."""

    LARGEST = math.log(2) + 1 / 6  # of log TARGET / PROPOSAL, at x = 2/3

    def judge(self, x: Tensor, labels: Tensor | None = None) -> Judgement:
        assert labels is not None
        p = ((super().judge(x, labels).logits - self.LARGEST) / 3).clamp(max=-1e-6).double().exp()
        own = torch.arange(2) == labels[:, None]
        return Judgement(torch.zeros(len(x)), torch.where(own, (p / (1 - p)).log()[:, None], 0.0))


def test_the_scale_of_the_class_part_decides_what_is_kept() -> None:
    """With w = 3 the samples follow the target; w = 1 would give N(1/3, 1/2), the geometric mean of both densities."""
    x, _ = rejection_samples(Standard(), Halved(), 2000, percentile=None, calibration=Calibration(3.0, 0.0))
    assert float(x.std()) == pytest.approx(0.5, abs=0.04)  # and not 0.71
    assert float(x.mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))  # and not 0.33


def test_a_bound_that_was_calibrated_too_low_is_raised_by_the_samples() -> None:
    """At the low bound every sample would be kept, and their deviation be that of the proposal, 1."""
    low = Calibration(1.0, -5.0)
    x, _ = rejection_samples(Standard(), Exact(), 2000, percentile=None, calibration=low, batch=500)
    assert float(x.std()) == pytest.approx(0.5, abs=0.06)
