"""What a victim counts of the passes through it: by hand, against every way in which a gradient can come back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks.core.run import behind
from uapgen.defences import parse_defences
from uapgen.victims import Cost, Ensemble, Victim


@pytest.fixture
def cost() -> Cost:
    return Cost()


@pytest.fixture
def victim(cost: Cost) -> Victim:
    return small_victim().counted(cost)


def images(n: int) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def spent(cost: Cost) -> tuple[int, int]:
    return cost.image_gradients, cost.image_forwards


def test_a_pass_without_a_gradient_is_forward_only(victim: Victim, cost: Cost) -> None:
    victim(images(3))
    with torch.no_grad():
        victim.features(images(2).requires_grad_())
    assert spent(cost) == (0, 5)
    assert not cost.passes


def test_a_pass_that_a_gradient_comes_back_through_is_no_forward(victim: Victim, cost: Cost) -> None:
    delta = torch.zeros(1, 3, 32, 32, requires_grad=True)
    logits = victim(images(4) + delta)
    assert spent(cost) == (0, 4)  # so far
    logits.sum().backward()
    assert spent(cost) == (4, 0)
    victim(images(2) + delta)  # nobody asks for its gradient
    assert spent(cost) == (4, 2)


def test_every_backward_pass_counts(victim: Victim, cost: Cost) -> None:
    x = images(3).requires_grad_()
    logits = victim(x)
    for label in range(4):
        torch.autograd.grad(logits[:, label].sum(), x, retain_graph=True)
    assert spent(cost) == (12, 0)
    assert cost.passes == {3: 4}


def test_an_image_that_passes_twice_counts_twice(victim: Victim, cost: Cost) -> None:
    x = images(2).requires_grad_()
    one, other = victim(x), victim(x)
    torch.autograd.grad(one.sum(), x)
    assert spent(cost) == (2, 2)
    torch.autograd.grad(other.sum(), x)
    assert spent(cost) == (4, 0)


def test_a_loss_of_layers_alone_counts(victim: Victim, cost: Cost) -> None:
    x, names = images(2).requires_grad_(), victim.layers()[:2]
    victim.probe(x, layers=names).layers[0].square().sum().backward()
    assert spent(cost) == (2, 0)
    assert list(cost.layers) == names


def test_gradients_of_weights_count(victim: Victim, cost: Cost) -> None:
    victim.module.requires_grad_(True)
    weights = list(victim.module.parameters())
    torch.autograd.grad(victim(images(5)).logsumexp(1).sum(), weights)
    assert spent(cost) == (5, 0)
    x = images(2).requires_grad_()
    torch.autograd.grad(victim(x).sum(), [x, *weights])
    assert spent(cost) == (7, 0)


def test_counting_changes_no_bit(victim: Victim) -> None:
    x = images(3).requires_grad_()
    found = [torch.autograd.grad(one(x).logsumexp(1).sum(), x)[0] for one in (victim, victim.counted(None))]
    assert torch.equal(*found)


def test_copies_share_the_counter_and_the_original_has_none(cost: Cost) -> None:
    original = small_victim()
    counted = original.counted(cost)
    through = behind(counted, parse_defences("jpeg75"), lambda: torch.Generator().manual_seed(0))
    for one in (counted, copy.copy(counted), counted.sharing(), through):
        one(images(1))
    assert spent(cost) == (0, 4)
    original(images(1))
    counted.counted(None)(images(1))
    assert spent(cost) == (0, 4)
    assert original.cost is None


def test_an_ensemble_counts_an_image_once(cost: Cost) -> None:
    ensemble = Ensemble([small_victim(), small_victim()]).counted(cost)
    x = images(3).requires_grad_()
    ensemble(x).sum().backward()
    assert spent(cost) == (3, 0)
    ensemble.features(images(2))
    assert spent(cost) == (3, 2)
