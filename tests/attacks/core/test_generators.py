"""The perturbation generator keeps the budget by construction, and a pattern does not depend on its batch."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import SEED
from uapgen.attacks.core.generators import PerturbationGenerator
from uapgen.runtime import rng

EPS = 10 / 255


@pytest.mark.parametrize("size", [(32, 32), (30, 45), (224, 224)])
def test_shape_and_budget(size: tuple[int, int]) -> None:
    network = PerturbationGenerator(size, EPS, width=4)
    with torch.no_grad():
        for parameter in network.to_rgb.parameters():
            parameter.mul_(1000)  # far beyond the bound before the tanh
        delta = network(network.latents(2, rng(0, "z")))
    assert delta.shape == (2, 3, *size)
    assert delta.abs().max() <= EPS
    assert delta.abs().max() > 0.99 * EPS


def test_a_pattern_does_not_depend_on_its_batch() -> None:
    network = PerturbationGenerator((32, 32), EPS, width=4)
    z = network.latents(5, rng(0, "z"))
    with torch.no_grad():
        assert torch.allclose(network(z)[3:4], network(z[3:4]), atol=1e-7)


def test_seed_decides_the_weights_and_leaves_torchs_own_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (PerturbationGenerator((32, 32), EPS, width=4, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    z = first.latents(2, rng(0, "z"))
    with torch.no_grad():
        assert torch.equal(first(z), second(z))
        assert not torch.equal(first(z), other(z))
        assert not torch.allclose(first(z)[0], first(z)[1])


def test_it_can_learn_a_pattern() -> None:
    target = EPS * (torch.arange(32) % 2 * 2.0 - 1).expand(1, 3, 32, 32)  # the highest frequency there is
    network = PerturbationGenerator((32, 32), EPS, width=8, seed=SEED)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(60):
        loss = (network(network.latents(2, rng(0, step))) - target).square().mean() / EPS**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # 0.002 to 0.008 were seen; a constant has 1


def test_a_centred_generator_does_not_get_stuck_in_one_colour() -> None:
    """What is best is the checkerboard alone (the loss is -1); plain brightness, at half of that, is easier to make.

    Not centred, the network is at 0.99 eps of brightness after twenty steps, for every latent, and stays there.
    """
    row = torch.arange(64) // 4
    board = (row.view(-1, 1) + row) % 2 * 2.0 - 1
    reached = {}
    for centred in (True, False):
        network = PerturbationGenerator((64, 64), EPS, width=16, centred=centred, seed=SEED)
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for step in range(40):
            delta = network(network.latents(4, rng(0, step))) / EPS
            loss = -(0.5 * delta + board * delta).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached[centred] = loss.item()
    assert reached[True] < -0.9
    assert reached[False] > -0.6
