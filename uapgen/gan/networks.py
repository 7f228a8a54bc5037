"""Residual generator and spectrally normalised discriminator (SNResGAN), 32, 64 or 128 pixels.

Miyato et al., "Spectral normalization for generative adversarial networks", 2018, with the channel plans that
Rangwani et al., "Class balancing GAN with a classifier in the loop", 2021, used at 64 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..errors import UsageError
from ..runtime import rng

# Channels in units of `width`. Generator: at 4x4, then after each doubling. Discriminator: after each block.
GENERATOR_PLAN = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
DISCRIMINATOR_PLAN = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
DOWNSAMPLED = {32: 2, 64: 4, 128: 5}  # how many of the discriminator's blocks, counted from the first, halve the image
SLOPE = 0.1


def sample_latents(n: int, dim: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """z ~ N(0, I), (n, dim) float32; drawn where the generator lives, so a CPU one gives every device the same z."""
    return torch.randn(n, dim, generator=generator, device=generator.device).to(device)


class Generator(nn.Module):
    """z (B, latent_dim) -> pixels (B,3,size,size) in [0,1]: tanh, mapped from [-1,1].

    `width` 64 at 64 pixels is the published network (1024-512-256-128-64 channels); 8 to 16 is enough for a CPU run.
    The initial weights depend on `seed` alone. Raises UsageError for a size without a plan.
    """

    def __init__(self, latent_dim: int = 128, size: int = 64, width: int = 64, *, seed: int = 0) -> None:
        super().__init__()
        channels = _channels(GENERATOR_PLAN, size, width)
        self.latent_dim, self.size, self.width = latent_dim, size, width
        with _seeded(seed, "generator"):
            self.project = _initialised(nn.Linear(latent_dim, channels[0] * 16))
            self.blocks = nn.Sequential(*(_UpBlock(a, b) for a, b in pairwise(channels)))
            self.norm = nn.BatchNorm2d(channels[-1])
            self.to_rgb = _initialised(nn.Conv2d(channels[-1], 3, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        features = self.blocks(self.project(z).view(len(z), -1, 4, 4))
        return (self.to_rgb(_act(self.norm(features))).tanh() + 1) / 2


class Discriminator(nn.Module):
    """Pixels (B,3,size,size) in [0,1] -> logits (B,). Spectral norm in every layer; features are summed over pixels.

    The initial weights depend on `seed` alone. Raises UsageError for a size without a plan.
    """

    def __init__(self, size: int = 64, width: int = 64, *, seed: int = 0) -> None:
        super().__init__()
        channels = (3, *_channels(DISCRIMINATOR_PLAN, size, width))
        self.size, self.width = size, width
        with _seeded(seed, "discriminator"):
            self.blocks = nn.Sequential(
                *(
                    _DownBlock(a, b, first=i == 0, down=i < DOWNSAMPLED[size])
                    for i, (a, b) in enumerate(pairwise(channels))
                )
            )
            self.head = _normalised(nn.Linear(channels[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        features = _act(self.blocks(2 * x - 1))
        return self.head(features.sum((2, 3))).squeeze(1)


class _UpBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = _initialised(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = _initialised(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = _initialised(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv1(F.interpolate(_act(self.norm1(x)), scale_factor=2, mode="nearest"))
        main = self.conv2(_act(self.norm2(main)))
        # A 1x1 convolution commutes with nearest upsampling; before it, it costs a quarter.
        return main + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class _DownBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, first: bool, down: bool) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = _normalised(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = _normalised(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = _normalised(nn.Conv2d(inputs, outputs, 1)) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv2(_act(self.conv1(x if self.first else _act(x))))  # no activation on raw pixels
        if not self.down:
            return main + self.skip(x)
        # A 1x1 convolution commutes with average pooling; after it, it costs a quarter.
        return F.avg_pool2d(main, 2) + self.skip(F.avg_pool2d(x, 2))


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def _channels(plan: dict[int, tuple[int, ...]], size: int, width: int) -> tuple[int, ...]:
    if size not in plan:
        raise UsageError(f"GAN image size {size} has no channel plan; choose one of {sorted(plan)}")
    if width < 1:
        raise UsageError(f"GAN width {width} is not positive; 64 is the published one, 16 runs on a CPU")
    return tuple(width * factor for factor in plan[size])


def _initialised(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _normalised(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    return spectral_norm(_initialised(layer), eps=1e-6)


@contextmanager
def _seeded(seed: int, key: str) -> Iterator[None]:
    # Layers and spectral_norm take no generator: lend them a seeded default one, then put the caller's back.
    held = torch.default_generator.get_state()
    torch.default_generator.set_state(rng(seed, "gan-init", key).get_state())
    try:
        yield
    finally:
        torch.default_generator.set_state(held)
