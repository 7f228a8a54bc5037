"""Channel plans, ranges, seeding and normalisation of the GAN's networks; their moving average; sample sheets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from uapgen.errors import UsageError
from uapgen.gan import Ema, SNResDiscriminator, SNResGenerator, sample_latents, save_grid
from uapgen.runtime import module_sha256, rng


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def up_block(a: int, b: int) -> int:
    return 2 * a + conv(a, b, 3) + 2 * b + conv(b, b, 3) + conv(a, b, 1)


def down_block(a: int, b: int) -> int:
    return conv(a, b, 3) + conv(b, b, 3) + conv(a, b, 1)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("size", "width", "channels"),
    [
        (64, 64, [1024, 512, 256, 128, 64]),  # the published network
        (64, 16, [256, 128, 64, 32, 16]),
        (32, 16, [64, 64, 64, 64]),
        (128, 8, [128, 128, 64, 32, 16, 8]),
    ],
)
def test_generator_has_the_parameters_of_its_plan(size: int, width: int, channels: list[int]) -> None:
    c = channels
    expected = (128 + 1) * c[0] * 16 + sum(map(up_block, c, c[1:])) + 2 * c[-1] + conv(c[-1], 3, 3)
    assert parameters(SNResGenerator(128, size, width)) == expected


@pytest.mark.parametrize(
    ("size", "width", "channels"),
    [(64, 64, [64, 128, 256, 512, 1024]), (128, 8, [8, 16, 32, 64, 128, 128])],
)
def test_discriminator_has_the_parameters_of_its_plan(size: int, width: int, channels: list[int]) -> None:
    c = [3, *channels]
    blocks = sum(map(down_block, c, c[1:]))
    if c[-1] == c[-2]:
        blocks -= conv(c[-1], c[-1], 1)  # neither size nor channels change: the skip is the identity
    assert parameters(SNResDiscriminator(size, width)) == blocks + c[-1] + 1


@pytest.mark.parametrize("size", [32, 64, 128])
def test_shapes_and_pixel_range(size: int) -> None:
    g, d = SNResGenerator(16, size, width=2), SNResDiscriminator(size, width=2)
    x = g(sample_latents(3, 16, rng(0, "z"))).detach()
    assert x.shape == (3, 3, size, size)
    assert x.dtype == torch.float32
    assert 0 <= float(x.min()) < 0.5 < float(x.max()) <= 1
    assert d(x).shape == (3,)


def test_discriminator_centres_pixels_and_sums_over_space() -> None:
    d = SNResDiscriminator(32, width=4).eval()
    seen = {}
    d.blocks.register_forward_pre_hook(lambda _, args: seen.update(input=args[0]))
    d.blocks.register_forward_hook(lambda _, __, output: seen.update(features=output))
    d.head.register_forward_pre_hook(lambda _, args: seen.update(pooled=args[0]))
    x = torch.rand(2, 3, 32, 32, generator=rng(0, "x"))
    d(x)
    assert torch.equal(seen["input"], 2 * x - 1)
    assert seen["features"].shape == (2, 8, 8, 8)  # two of the four blocks halve
    assert torch.allclose(seen["pooled"], nn.functional.leaky_relu(seen["features"], 0.1).sum((2, 3)))


def test_spectral_norm_is_in_the_discriminator_only() -> None:
    g, d = SNResGenerator(16, 32, width=2), SNResDiscriminator(32, width=4)
    for _ in range(50):
        d(torch.rand(1, 3, 32, 32))
    d.eval()
    layers = [m for m in d.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert layers
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in d.modules())
    assert not any("parametrizations" in name for name, _ in g.named_parameters())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in g.modules()) == 2 * 3 + 1


def test_initial_weights_are_orthogonal_and_biases_zero() -> None:
    g = SNResGenerator(16, 32, width=4)
    rows = g.blocks[0].conv1.weight.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-5)
    assert not g.project.bias.any()
    assert not g.to_rgb.bias.any()


def test_the_seed_alone_decides_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one = SNResGenerator(16, 32, 2, seed=3), SNResDiscriminator(32, 2, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    two = SNResGenerator(16, 32, 2, seed=3), SNResDiscriminator(32, 2, seed=3)
    assert [module_sha256(m) for m in one] == [module_sha256(m) for m in two]
    assert module_sha256(SNResGenerator(16, 32, 2, seed=4)) != module_sha256(one[0])


def test_sizes_without_a_plan_are_refused() -> None:
    with pytest.raises(UsageError, match=r"size 48 .* \[32, 64, 128\]"):
        SNResGenerator(size=48)
    with pytest.raises(UsageError, match="width 0"):
        SNResDiscriminator(32, 0)


def test_latents_are_standard_normal_and_reproducible() -> None:
    z = sample_latents(2000, 8, rng(1, "z"))
    assert torch.equal(z, sample_latents(2000, 8, rng(1, "z")))
    assert abs(float(z.mean())) < 0.04
    assert abs(float(z.std()) - 1) < 0.03


def test_grid_puts_images_row_by_row(tmp_path) -> None:
    levels = torch.tensor([0, 51, 102, 153, 255]) / 255
    save_grid(levels.view(5, 1, 1, 1).expand(5, 3, 2, 4), tmp_path / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    assert picture.shape == (2 * 2, 3 * 4, 3)
    assert picture[::2, ::4, 1].tolist() == [[0, 51, 102], [153, 255, 0]]


def test_ema_is_pegged_until_start_then_averages_buffers_too() -> None:
    source = nn.BatchNorm1d(2)
    ema = Ema(source, halflife=8, start=16)
    with torch.no_grad():
        source.weight.fill_(4)
        source.running_mean.fill_(-4)
    ema.update(source, nimg=16, batch=8)
    assert ema.module.weight.tolist() == [4, 4]
    with torch.no_grad():
        source.weight.fill_(0)
        source.running_mean.fill_(0)
        source.num_batches_tracked += 3
    ema.update(source, nimg=24, batch=8)  # one half-life
    assert ema.module.weight.tolist() == [2, 2]
    assert ema.module.running_mean.tolist() == [-2, -2]
    assert ema.module.num_batches_tracked == 3
    assert not ema.module.training
    assert not ema.module.weight.requires_grad


def test_ema_does_not_depend_on_the_batch_size() -> None:
    source = nn.Linear(1, 1, bias=False)
    averages = [Ema(source, halflife=10) for _ in range(2)]
    with torch.no_grad():
        source.weight.add_(1)
    averages[0].update(source, 12, 12)
    for nimg in (4, 8, 12):
        averages[1].update(source, nimg, 4)
    assert torch.allclose(averages[0].module.weight, averages[1].module.weight)
    with pytest.raises(UsageError, match="half-life 0"):
        Ema(source, halflife=0)
