"""The victim in the loop: each term against a case whose answer is known, and the per-victim cache."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import TINY, gratings
from tests.longtail.brightness import brightness_victim, flat
from uapgen.gan import ClassBalance, GroupSpectral, SNDCGenerator
from uapgen.gan.balance import entropy, negentropy
from uapgen.gan.proxy_gan import ProxyGanSettings, proxy_gan
from uapgen.gan.victim_loss import TermWeights, VictimTerms, resize, statistics_distance
from uapgen.proxies import Procedural
from uapgen.runtime import rng
from uapgen.victims import Victim

SMALL = ProxyGanSettings(images=64, victim_every=2, size=32, width=2, latent_dim=8, batch=8)


def norm_victim(x: torch.Tensor) -> Victim:
    """One batch norm on the pixels, whose running statistics are those of `x`."""
    norm = nn.BatchNorm2d(3)
    centred = (x - 0.5) / 0.5
    var, mean = torch.var_mean(centred, (0, 2, 3), correction=0)
    norm.running_mean, norm.running_var = mean, var
    module = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    return Victim(module, preprocessing=TINY, device="cpu")


def test_statistics_distance_is_zero_on_the_images_that_made_the_statistics() -> None:
    x, _ = gratings(16, seed=5)
    victim = norm_victim(x)
    assert victim.batch_norms() == ["0"]

    def distance(images: torch.Tensor) -> float:
        return statistics_distance(victim, ["0"], victim.probe(images, inputs_of=["0"]).layers).item()

    assert distance(x) == pytest.approx(0, abs=1e-6)
    running = victim.module[0].running_var + 1e-5  # type: ignore[index]
    brighter = (0.1 / 0.5) ** 2 / running
    assert distance(x.clamp(0.0, 0.9) + 0.1) > 0.5 * brighter.mean().item()


def test_absorbed_statistics_switch_the_term_off(tiny_victim: Victim) -> None:
    assert not VictimTerms(tiny_victim, TermWeights()).statistics_off
    for module in tiny_victim.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    terms = VictimTerms(tiny_victim, TermWeights())
    assert terms.norms == []
    assert terms.statistics_off
    assert not VictimTerms(tiny_victim, TermWeights(statistics=0)).statistics_off  # not asked for


def test_entropy_of_uniform_and_of_certain_logits() -> None:
    assert entropy(torch.zeros(2, 10)).tolist() == pytest.approx([torch.tensor(10.0).log().item()] * 2)
    assert entropy(100 * torch.eye(10)).tolist() == pytest.approx([0] * 10, abs=1e-5)


def test_the_loss_is_the_weighted_sum_and_lazy(tiny_victim: Victim) -> None:
    fake = torch.rand(8, 3, 16, 16, generator=rng(0, "fake"), requires_grad=True)
    terms = VictimTerms(tiny_victim, TermWeights(2.0, 3.0, 0.5), every=4)
    loss, figures = terms(fake, nimg=0)
    parts = 2 * figures["balance_loss"] + 3 * figures["confidence_loss"] + 0.5 * figures["statistics_loss"]
    assert loss.item() == pytest.approx(4 * parts, rel=1e-5)
    loss.backward()
    assert terms.image_gradients == 8
    skipped, nothing = terms(fake, nimg=8)
    assert (skipped.item(), nothing, terms.image_gradients) == (0.0, {}, 8)


def test_balance_pulls_towards_the_class_that_was_made_rarely(tiny_victim: Victim) -> None:
    """At uniform p the gradient of sum w p log p is w (1 - log K): for K = 10 most negative for the rarest class."""
    terms = VictimTerms(tiny_victim, TermWeights(1, 0, 0), alpha=0.5, update_every=90)
    terms.frequency.count(torch.arange(9).repeat(10))  # class 9 was never made
    assert terms.frequency.update()
    p = torch.full((10,), 0.1, requires_grad=True)
    negentropy(p, terms.frequency.weights()).backward()
    assert p.grad is not None
    assert p.grad.argmin() == 9


def test_the_cache_spares_training_and_the_record_stays(
    tiny_victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    steps: list[int] = []
    real = Procedural(32)

    def make(settings: ProxyGanSettings, seed: int, folder: str) -> dict:
        made = proxy_gan(
            tiny_victim, real, settings, seed=seed, folder=tmp_path / folder, callback=lambda n, _: steps.append(n)
        )
        images = made.batch(4, rng(0, "look"))
        assert images.shape == (4, 3, 32, 32)
        assert images.min() >= 0
        assert images.max() <= 1
        assert made.data_class == "none"
        return {**made.describe(), "sum": images.sum().item()}

    first = make(SMALL, 0, "a")
    assert len(steps) == 8
    assert first["image_gradients"] == 32  # 64 images, every second step
    assert first["coverage"]["n"] == 256
    assert make(SMALL, 0, "b") == first
    assert len(steps) == 8
    assert make(SMALL, 1, "c")["key"] != first["key"]
    assert len(steps) == 16


def test_a_cache_that_cannot_be_written_does_not_cost_the_run(
    tiny_victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").touch()  # no folder, so that not even root can write into it
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=r"not kept for the next run: cannot write .*cache"):
        made = proxy_gan(tiny_victim, Procedural(32), SMALL, seed=0, folder=tmp_path / "run")
    assert made.describe()["image_gradients"] == 32


def test_resize_keeps_a_constant_and_the_shape() -> None:
    assert torch.allclose(resize(torch.full((1, 3, 8, 8), 0.3), (20, 12)), torch.full((1, 3, 20, 12), 0.3))


def test_a_batch_that_closes_a_window_is_weighed_as_before_it() -> None:
    """Class weights are those of the windows before: its own batch does not change what a batch costs."""
    victim, x = brightness_victim(), flat(torch.tensor([0.0, 0.0, 0.0, 0.5]))
    balance = ClassBalance(victim, 2.0, window=4, first_window=0.0, initial=1.0)
    p = victim(x).softmax(1).mean(0)
    assert float(balance(x, 0)[0]) == pytest.approx(2 * float((p * p.log()).sum()), rel=1e-5)
    made = torch.tensor([3.0, 0.0, 1.0, 0.0, 0.0])
    inverse = 1 / (0.5 * torch.ones(5) + 0.5 * made).clamp(min=1)
    weights = 5 * inverse / inverse.sum()
    assert float(balance(x, 4)[0]) == pytest.approx(2 * float((weights * p * p.log()).sum()), rel=1e-5)


def test_extra_losses_say_what_they_are(tiny_victim: Victim) -> None:
    """For the run folder: equal descriptions are equal losses."""
    counts, g = torch.tensor([3, 2]), SNDCGenerator(4, 2, num_classes=2)
    makers = [
        *(partial(ClassBalance, tiny_victim, weight) for weight in (1.0, 2.0)),
        partial(ClassBalance, tiny_victim, 1.0, effective=False),
        *(partial(ClassBalance, tiny_victim, 1.0, **{name: 3.0}) for name in ("window", "alpha", "first_window")),
        *(partial(VictimTerms, tiny_victim, weights) for weights in (TermWeights(), TermWeights(1.0))),
        *(partial(VictimTerms, tiny_victim, TermWeights(), **{name: 2}) for name in ("every", "update_every", "norms")),
        *(partial(GroupSpectral, g, counts, weight=weight) for weight in (1.0, 2.0)),
        *(partial(GroupSpectral, g, counts, **{name: 0.5}) for name in ("beta", "seed")),
        partial(GroupSpectral, g, counts + 1),
    ]
    told = [json.dumps(make().describe(), sort_keys=True) for make in makers]
    assert told == [json.dumps(make().describe(), sort_keys=True) for make in makers]
    assert len(set(told)) == len(told)
