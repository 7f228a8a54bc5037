"""The gap of log-densities against Gaussians whose gap is known, and its weights in the discriminator's loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import cross_entropy, softplus

from uapgen.errors import UsageError
from uapgen.gan import TrainSettings, hinge, non_saturating, relativistic
from uapgen.gan.conditional import Judgement
from uapgen.gan.gold import proxy_filter, under_representation
from uapgen.gan.steps import UNLABELLED, Game
from uapgen.longtail.gold import (
    conditional,
    deviation_ratio,
    generated_gap,
    networks,
    real_gap,
    rejection_scale,
    signed_power,
    unlabelled_gap,
)
from uapgen.longtail.gold.training import Reweighting
from uapgen.runtime import module_sha256, rng

DATA, MODEL = (Normal(-9.0, 1.0), Normal(9.0, 1.0)), (Normal(-8.5, 1.5), Normal(9.5, 0.8))
FLIPPED = 0.2  # of the data's labels; the model's are clean, so that p_g(c|x) is 1 to 1e-30


def log_data(x: Tensor, c: Tensor) -> Tensor:
    """log p_data(x,c) of labels 0 and 1, of which a fifth is wrong."""
    parts = torch.stack([each.log_prob(x) for each in DATA], 1)
    weights = torch.tensor([[1 - FLIPPED, FLIPPED], [FLIPPED, 1 - FLIPPED]], dtype=x.dtype)
    return torch.logsumexp(parts + weights[c].log(), 1) + math.log(0.5)


def log_model(x: Tensor, c: Tensor) -> Tensor:
    parts = torch.stack([each.log_prob(x) for each in MODEL], 1)
    return parts.gather(1, c[:, None])[:, 0] + math.log(0.5)


def exact(x: Tensor) -> Judgement:
    """What optimal discriminators say of x: log p_data(x) - log p_g(x), and log p_data(c|x)."""
    zero, one = torch.zeros(len(x), dtype=torch.long), torch.ones(len(x), dtype=torch.long)
    joint = torch.stack([log_data(x, zero), log_data(x, one)], 1)
    marginal_model = torch.logaddexp(log_model(x, zero), log_model(x, one))
    return Judgement(joint.logsumexp(1) - marginal_model, joint)


def generated(n: int) -> tuple[Tensor, Tensor]:
    c = torch.arange(n) % 2
    noise = torch.randn(n, generator=rng(0, "gold"), dtype=torch.float64)
    means, spreads = (torch.tensor([getattr(m, name) for m in MODEL]).double() for name in ("mean", "stddev"))
    return means[c] + spreads[c] * noise, c


def test_exact_discriminators_give_the_true_gap() -> None:
    x, c = generated(500)
    assert torch.allclose(generated_gap(exact(x), c), log_data(x, c) - log_model(x, c), atol=1e-9)


def test_real_gap_where_the_classifier_stands_for_the_model() -> None:
    """Real images with p_data(c|x) = 1 and a classifier that is p_g(c|x): the roles exchanged."""
    x, c = generated(200)
    judged = exact(x)
    swapped = Judgement(-judged.logits, judged.classes)  # data and model exchange places
    assert torch.allclose(real_gap(swapped, c), log_model(x, c) - log_data(x, c), atol=1e-9)


def test_signs_and_scale() -> None:
    judged = Judgement(torch.tensor([1.0, -2.0]), torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]))
    labels = torch.tensor([0, 1])
    q = torch.tensor([math.log(0.5), math.log(0.25)])
    assert torch.allclose(conditional(judged, labels), q)
    assert torch.allclose(generated_gap(judged, labels), judged.logits + q)
    assert torch.allclose(real_gap(judged, labels), judged.logits - q)
    assert torch.allclose(generated_gap(judged, labels, 2.0), judged.logits + 2 * q)
    expected = torch.tensor([math.log(2), -0.75 * math.log(0.75) - 0.25 * math.log(0.25)])
    assert torch.allclose(unlabelled_gap(judged), judged.logits + expected)
    ratio = (judged.logits[0] - judged.logits[1]) / (expected[0] - expected[1])
    assert torch.allclose(unlabelled_gap(judged, balanced=True), judged.logits + ratio * expected)


def test_two_scales_differ_by_mean_of_q() -> None:
    m, q = torch.tensor([0.0, 4.0]), torch.tensor([-3.0, -5.0])
    assert float(deviation_ratio(m, q)) == pytest.approx(2 / 1)
    assert float(rejection_scale(m, q)) == pytest.approx(2 / math.sqrt(17))
    assert float(deviation_ratio(m, torch.full((2,), -1.0))) == 0
    assert float(deviation_ratio(m, torch.tensor([1.0, 1.0 + 1e-7]))) == 0  # constant but for rounding
    assert float(rejection_scale(m, torch.zeros(2))) == 0


def test_without_a_classifier_it_says_so() -> None:
    with pytest.raises(UsageError, match="auxiliary"):
        generated_gap(Judgement(torch.zeros(2), None), torch.zeros(2, dtype=torch.long))


def test_signed_power() -> None:
    x = torch.tensor([-4.0, 0.0, 9.0])
    assert signed_power(x, 0.5).tolist() == [-2, 0, 3]
    assert signed_power(x, 1).tolist() == x.tolist()
    assert signed_power(x, 0).tolist() == [1, 1, 1]


def test_reweighting_starts_late_and_is_detached() -> None:
    weight = Reweighting(start=100)
    judged = Judgement(torch.tensor([3.0, -3.0], requires_grad=True), torch.zeros(2, 2, requires_grad=True))
    labels = torch.tensor([0, 1])
    assert weight(judged, labels, 99) is None
    now = weight(judged, labels, 100)
    assert now is not None and not now.requires_grad
    assert torch.allclose(now, torch.tensor([3.0, -3.0]) + math.log(0.5))
    with pytest.raises(UsageError, match="conditional"):
        weight(judged, None, 100)
    with pytest.raises(UsageError, match="beta -1"):
        Reweighting(start=0, beta=-1)


def game(**options: Any) -> tuple[Game, torch.optim.Optimizer]:
    nets = networks("points", width=2, latent_dim=3)
    g, d = nets.generator(2, 0), nets.discriminator(2, 0)
    settings = TrainSettings(**({"batch": 6, "loss": non_saturating} | options))
    return Game(g, d, settings), torch.optim.SGD(d.parameters(), 0.1)


def step(played: Game, optimizer: torch.optim.Optimizer, labels: Tensor) -> dict[str, Any]:
    draws = rng(0, "step")
    x = torch.randn(6, 2, generator=draws)
    latents = torch.randn(6, 3, generator=draws), torch.arange(6) % 2
    return played.discriminator_step(optimizer, (x, labels), latents, draws, 0)


def test_weighted_step_is_eq_5_on_the_fake_terms_alone() -> None:
    weights = torch.tensor([2.0, -1.0, 0.0, 1.0, 0.5, -3.0])
    played, optimizer = game(fake_auxiliary=0.3, fake_weight=lambda judged, labels, nimg: weights)
    copy, _ = game()
    draws, labels = rng(0, "step"), torch.tensor([0, 1, UNLABELLED, UNLABELLED, 1, 0])
    x = torch.randn(6, 2, generator=draws)
    z, y = torch.randn(6, 3, generator=draws), torch.arange(6) % 2
    on_real, on_fake = copy.d.judge(x), copy.d.judge(copy.g(z, y).detach())
    assert on_real.classes is not None and on_fake.classes is not None
    loss = softplus(-on_real.logits).mean() + (weights * softplus(on_fake.logits)).mean()
    loss = loss + cross_entropy(on_real.classes[labels >= 0], labels[labels >= 0])
    loss = loss + 0.3 * (weights * cross_entropy(on_fake.classes, y, reduction="none")).mean()
    loss.backward()
    expected = {name: p - 0.1 * p.grad for name, p in copy.d.named_parameters() if p.grad is not None}
    step(played, optimizer, labels)
    for name, parameter in played.d.named_parameters():
        assert torch.allclose(parameter, expected[name], atol=1e-6), name


def test_ones_and_one_are_the_plain_step() -> None:
    labels = torch.arange(6) % 2
    plain, weighted = game(), game(fake_auxiliary=1.0, fake_weight=lambda *_: torch.ones(6))
    a, b = step(*plain, labels), step(*weighted, labels)
    assert float(a["d_loss"]) == pytest.approx(float(b["d_loss"]))
    assert float(a["d_classes"]) == pytest.approx(float(b["d_classes"]))


def test_a_batch_without_labels_is_finite() -> None:
    stats = step(*game(fake_auxiliary=0.0), torch.full((6,), UNLABELLED))
    assert float(stats["d_classes"]) == 0


def test_pairs_have_no_terms_to_weigh() -> None:
    with pytest.raises(UsageError, match="non_saturating"):
        step(*game(loss=relativistic, fake_weight=lambda *_: torch.ones(6)), torch.arange(6) % 2)


@pytest.mark.parametrize("loss", [hinge, non_saturating])
def test_terms_are_those_of_the_loss(loss: Any) -> None:
    real, fake = torch.randn(2, 8, generator=rng(1))
    assert float(loss.d_loss(real, fake)) == pytest.approx(sum(float(t.mean()) for t in loss.d_terms(real, fake)))


def test_reweighted_training_continues_in_the_same_bytes(tmp_path: Path) -> None:
    from uapgen.longtail.gold import GoldTraining, train
    from uapgen.longtail.gold.examples import blobs

    def run(folder: Path, stop: int | None) -> str:
        nets = networks("points", width=2, latent_dim=3)
        g, d = nets.generator(2, 0), nets.discriminator(2, 0)
        settings: dict[str, Any] = {"folder": folder, "about": {}, "seed": 0, "device": torch.device("cpu")}

        def callback(nimg: int, stats: dict[str, float]) -> None:
            assert ("fake_weight" in stats) == (nimg > 96)
            if nimg == stop:
                raise KeyboardInterrupt

        plan = GoldTraining(images=192, batch=16).settings(Reweighting(start=96))
        train(g, d, blobs(60).batch, plan, images=192, callback=callback, **settings)
        return module_sha256(g)

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", 112)
    assert run(tmp_path / "run", None) == whole


class Bright(nn.Module):
    """Calls bright images real."""

    def judge(self, x: Tensor, labels: Tensor | None = None) -> Judgement:
        return Judgement(x.mean((1, 2, 3)), None)


def test_proxy_filter_keeps_the_rare_and_the_real() -> None:
    common, rare = torch.full((6, 3, 8, 8), 0.5), torch.full((2, 3, 8, 8), 0.5)
    common[0] += 0.3  # as rare in brightness as the others are in class
    images = torch.cat([common, rare])
    logits = torch.cat([torch.tensor([[5.0, 0.0]]).expand(6, 2), torch.tensor([[0.0, 5.0]]).expand(2, 2)])
    discriminator: Any = Bright()
    kept = proxy_filter(images, discriminator, lambda x: logits[: len(x)], keep=3 / 8)
    assert sorted(kept.tolist()) == [0, 6, 7]
    shifted = under_representation(images.mean((1, 2, 3)) + 7, logits)
    assert torch.allclose(shifted - 7, under_representation(images.mean((1, 2, 3)), logits), atol=1e-5)
    with pytest.raises(UsageError, match="share of proxies"):
        proxy_filter(images, discriminator, lambda x: logits, keep=0)
    with pytest.raises(UsageError, match="no proxy"):
        proxy_filter(images[:0], discriminator, lambda x: logits)
