"""The objective: each weight adds its own loss, and which layers count."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import small_victim
from uapgen.attacks.cbgan.objective import Objective
from uapgen.attacks.core.losses import agreement, cosine, log_energy
from uapgen.attacks.core.run import Crafting
from uapgen.errors import UsageError

NOTHING = {"activation": 0.0, "displacement": 0.0, "logits": 0.0, "features": 0.0, "agreement": 0.0}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
DELTA = 0.05 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


def loss(**settings: float) -> float:
    victim = small_victim()
    objective = Objective(**NOTHING | settings)
    clean = objective.clean(Crafting(victim, None, 10 / 255, seed=0, budget=100), IMAGES)
    return objective(victim, IMAGES + DELTA, clean)[0].item()


def test_displacement_is_the_energy_of_what_the_pattern_adds() -> None:
    """Where a layer is linear, its displacement does not depend on the image; its energy does."""
    victim = small_victim()
    first = victim.layers()[:1]
    depth = {"start": 0.0, "end": 1 / len(victim.layers())}
    assert Objective(**depth).layers(victim) == first
    one, other = (victim.probe(0.5 + d, layers=first).layers[0] for d in (DELTA, torch.zeros_like(DELTA)))
    alone = log_energy([one - other]).item()
    assert loss(displacement=2.0, **depth) == pytest.approx(2 * alone, abs=1e-4)
    assert loss(activation=1.0, **depth) != pytest.approx(alone, abs=0.1)


def test_each_weight_adds_its_own_loss() -> None:
    victim = small_victim()
    names = victim.layers()[1:]
    clean, moved = (victim.probe(x, layers=names) for x in (IMAGES, IMAGES + DELTA))
    parts = {
        "activation": log_energy(moved.layers),
        "displacement": log_energy([a - b for a, b in zip(moved.layers, clean.layers, strict=True)]),
        "logits": cosine(clean.logits, moved.logits),
        "features": cosine(clean.features, moved.features),
        "agreement": -agreement(moved.logits),
    }
    for name, part in parts.items():
        assert loss(**{name: 2.0}) == pytest.approx(2 * part.item(), abs=1e-4), name
    assert loss(**dict.fromkeys(parts, 1.0)) == pytest.approx(sum(part.item() for part in parts.values()), abs=1e-4)


@pytest.mark.parametrize(
    ("start", "end", "layers"),
    [(0.0, 1.0, [0, 1, 2, 3]), (0.3, 1.0, [1, 2, 3]), (0.5, 0.75, [2]), (0.9, 1.0, [3]), (0.5, 0.6, [2])],
)
def test_layers_are_shares_of_the_depth_and_at_least_one(start: float, end: float, layers: list[int]) -> None:
    victim = small_victim()
    assert Objective(start=start, end=end).layers(victim) == [victim.layers()[i] for i in layers]


def test_what_leaves_no_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="no layer lies between"):
        Objective(start=0.6, end=0.4).check(small_victim())
    with pytest.raises(UsageError, match="all weights"):
        Objective(**NOTHING).check(small_victim())
    Objective(**NOTHING | {"logits": 1.0}).check(small_victim())
