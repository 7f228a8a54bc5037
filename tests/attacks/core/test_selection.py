"""Pools of proxies, and how a candidate is chosen on held-out ones."""

from __future__ import annotations

import torch
from torch import nn

from tests.conftest import TINY
from uapgen.attacks.core.run import Crafting
from uapgen.attacks.core.selection import HeldOut
from uapgen.proxies import ColouredBlocks, PinkNoise, Pool, Procedural
from uapgen.runtime import rng
from uapgen.victims import Victim


def test_a_pool_draws_from_n_fixed_images_of_its_source() -> None:
    pool = Pool(ColouredBlocks(16), 5, seed=3)
    drawn = pool.batch(64, rng(0, "draw"))
    assert len(drawn.flatten(1).unique(dim=0)) == 5
    assert torch.equal(drawn, Pool(ColouredBlocks(16), 5, seed=3).batch(64, rng(0, "draw")))
    assert not torch.equal(drawn, Pool(ColouredBlocks(16), 5, seed=4).batch(64, rng(0, "draw")))
    assert torch.equal((drawn * 255).round() / 255, drawn)
    assert pool.data_class == "none"
    assert pool.describe()["pool"] == 5


def test_a_pool_larger_than_a_batch_of_its_source_has_no_doubles() -> None:
    assert len(Pool(Procedural(16), 70, seed=0).images.flatten(1).unique(dim=0)) == 70


def test_held_out_score_is_the_kl_at_half_strength() -> None:
    """Logits (mean, 0): a uniform delta d moves the first by d/2 at half strength."""
    linear = nn.Linear(3 * 32 * 32, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.full((3072,), 1 / 3072), torch.zeros(3072)]))
        linear.bias.zero_()
    victim = Victim(nn.Sequential(nn.Flatten(), linear), preprocessing=TINY, device="cpu")
    run = Crafting(victim, None, 0.1, seed=0, budget=1)
    held_out = HeldOut(run, PinkNoise(32), 12, batch=5)
    assert held_out.score(torch.zeros(1, 3, 32, 32)) == 0
    assert run.cost.as_dict() == {"image_gradients": 0, "image_forwards": 24}

    delta = torch.full((1, 3, 32, 32), 0.1)
    clean = victim(held_out.images).log_softmax(1)
    moved = victim((held_out.images + delta / 2).clamp(0, 1)).log_softmax(1)
    expected = (clean.exp() * (clean - moved)).sum(1).mean().item()
    assert abs(held_out.score(delta) - expected) < 1e-4
    assert held_out.score(delta) > held_out.score(delta / 4) > 0
