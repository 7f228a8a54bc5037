"""SNDCGAN: the published parameter counts, shapes, normalisation, seeding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from uapgen.errors import UsageError
from uapgen.gan import SNDCDiscriminator, SNDCGenerator, sample_latents
from uapgen.runtime import module_sha256, rng


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts() -> None:
    assert parameters(SNDCGenerator()) == 3_812_355
    assert parameters(SNDCDiscriminator()) == 2_928_193


def test_heads_and_conditional_norms_add_their_parameters() -> None:
    plain = parameters(SNDCDiscriminator(width=4))
    assert parameters(SNDCDiscriminator(4, num_classes=7)) == plain + 7 * 32
    assert parameters(SNDCDiscriminator(4, num_classes=7, head="auxiliary")) == plain + 7 * 32 + 7
    channels = 16 + 8 + 4  # behind each deconvolution
    assert parameters(SNDCGenerator(8, 4, num_classes=7)) == parameters(SNDCGenerator(8, 4)) + (7 - 1) * 2 * channels


def test_shapes_and_pixel_range() -> None:
    g, d = SNDCGenerator(8, 4), SNDCDiscriminator(4)
    x = g(sample_latents(5, 8, rng(0, "z"))).detach()
    assert x.shape == (5, 3, 32, 32)
    assert 0 <= float(x.min()) < 0.5 < float(x.max()) <= 1
    assert d(x).shape == (5,)


def test_latents_reach_the_first_deconvolution_as_a_linear_map() -> None:
    """No norm and no activation before it, as published: doubling z doubles what it reads."""
    g = SNDCGenerator(8, 4)
    seen: list[torch.Tensor] = []
    g.deconvolutions[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    z = sample_latents(2, 8, rng(0, "z"))
    g(z), g(2 * z)
    assert torch.allclose(2 * seen[0], seen[1], atol=1e-5)


def test_discriminator_centres_pixels_and_sums_over_space() -> None:
    d = SNDCDiscriminator(4).eval()
    seen = {}
    d.convolutions[0].register_forward_pre_hook(lambda _, args: seen.update(input=args[0]))
    d.convolutions[-1].register_forward_hook(lambda _, __, output: seen.update(last=output))
    x = torch.rand(2, 3, 32, 32, generator=rng(0, "x"))
    features = d.features(x)
    assert torch.equal(seen["input"], 2 * x - 1)
    assert seen["last"].shape == (2, 32, 4, 4)
    assert torch.allclose(features, nn.functional.leaky_relu(seen["last"], 0.1).sum((2, 3)))


def test_spectral_norm_is_in_all_of_the_discriminator_and_nowhere_else() -> None:
    g, d = SNDCGenerator(8, 4), SNDCDiscriminator(4, num_classes=3)
    for _ in range(60):
        d(torch.rand(1, 3, 32, 32, generator=rng(0, "x")), torch.zeros(1, dtype=torch.int64))
    layers = [m for m in d.eval().modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 7 + 2
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=2e-3)
    assert not any("parametrizations" in name for name, _ in g.named_parameters())


def test_the_seed_alone_decides() -> None:
    before = torch.get_rng_state()
    one = SNDCGenerator(8, 4, seed=3), SNDCDiscriminator(4, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    two = SNDCGenerator(8, 4, seed=3), SNDCDiscriminator(4, seed=3)
    assert [module_sha256(m) for m in one] == [module_sha256(m) for m in two]
    assert module_sha256(SNDCGenerator(8, 4, seed=4)) != module_sha256(one[0])


def test_no_width_is_refused() -> None:
    with pytest.raises(UsageError, match="width 0"):
        SNDCGenerator(8, 0)
