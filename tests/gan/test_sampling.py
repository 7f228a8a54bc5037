"""Latents and labels: the order of the draws, on which every published sample depends, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from uapgen.errors import UsageError
from uapgen.gan import SNDCGenerator, sample_latents, sampler
from uapgen.gan.sampling import latents_and_labels, samples
from uapgen.runtime import rng

K = 4
NETWORK = SNDCGenerator(6, 2, size=16, num_classes=K)


def asked(labels: Any, n: int = 10, network: SNDCGenerator = NETWORK) -> Any:
    return latents_and_labels(network, n, rng(0, "z"), "cpu", labels=labels)


def test_labels_are_drawn_after_the_latents_or_first() -> None:
    draws = rng(0, "z")
    z, y = torch.randn(10, 6, generator=draws), torch.randint(K, (10,), generator=draws)
    assert torch.equal(asked("uniform")[0], z) and torch.equal(asked("uniform")[1], y)
    draws = rng(0, "z")
    y, z = torch.randint(K, (10,), generator=draws), torch.randn(10, 6, generator=draws)
    assert torch.equal(asked("first")[0], z) and torch.equal(asked("first")[1], y)


def test_one_class_and_turns_draw_nothing() -> None:
    z = sample_latents(10, 6, rng(0, "z"))
    for labels, expected in ((2, [2] * 10), ("turns", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1])):
        latents, y = asked(labels)
        assert torch.equal(latents, z) and y.tolist() == expected and y.dtype == torch.int64


def test_a_network_without_classes_has_no_labels() -> None:
    plain = SNDCGenerator(6, 2, size=16)
    z = sample_latents(10, 6, rng(0, "z"))
    for labels in ("uniform", "first", "turns"):
        assert torch.equal(asked(labels, network=plain)[0], z) and asked(labels, network=plain)[1] is None
    with pytest.raises(UsageError, match="generator without labels"):
        asked(0, network=plain)
    with pytest.raises(UsageError, match="generator of 4 classes"):
        asked(4)
    with pytest.raises(UsageError, match="conditional generator"):
        samples(plain, 2, rng(0))


def test_a_sampler_is_the_network_in_eval_mode() -> None:
    network = SNDCGenerator(6, 2, size=16, num_classes=K).train()
    x, y = sampler(network, labels="first", psi=1.5)(12, rng(3))
    assert not network.training and not x.requires_grad
    z, labels = latents_and_labels(network, 12, rng(3), "cpu", labels="first", psi=1.5)
    assert float(z.abs().max()) <= 1.5 and torch.equal(y, labels)
    with torch.no_grad():
        assert torch.equal(x, network(z, labels))
    for psi in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="psi"):
            sampler(network, psi=psi)
