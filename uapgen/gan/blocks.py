"""What the GAN's networks are made of: residual blocks, initial weights, spectral norm, seeding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ..errors import UsageError
from ..runtime import rng

SLOPE = 0.1
Layer = TypeVar("Layer", bound=nn.Module)


class UpBlock(nn.Module):
    """Doubles the image: norm, activation, nearest x2, conv3, norm, activation, conv3, plus a 1x1 skip.

    norm: makes a normalisation layer for a number of channels; it is called with the features and `condition`.
    layer: what is done to each new convolution, `initialised` or `normalised`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: Callable[[int], nn.Module],
        layer: Callable[[nn.Conv2d], nn.Module],
        slope: float = SLOPE,
    ) -> None:
        super().__init__()
        self.slope = slope
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = layer(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = layer(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = layer(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        main = F.leaky_relu(self.norm1(x, condition), self.slope)
        main = self.conv1(F.interpolate(main, scale_factor=2, mode="nearest"))
        main = self.conv2(F.leaky_relu(self.norm2(main, condition), self.slope))
        # A 1x1 convolution commutes with nearest upsampling; before it, it costs a quarter.
        return main + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """Halves the image if `down`: activation, conv3, activation, conv3, plus a 1x1 skip; all spectrally normalised."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, down: bool, slope: float = SLOPE) -> None:
        super().__init__()
        self.first, self.down, self.slope = first, down, slope
        self.conv1 = normalised(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = normalised(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = normalised(nn.Conv2d(inputs, outputs, 1)) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv1(x if self.first else F.leaky_relu(x, self.slope))  # no activation on raw pixels
        main = self.conv2(F.leaky_relu(main, self.slope))
        if not self.down:
            return main + self.skip(x)
        # A 1x1 convolution commutes with average pooling; after it, it costs a quarter.
        return F.avg_pool2d(main, 2) + self.skip(F.avg_pool2d(x, 2))


def to_pixels(x: Tensor) -> Tensor:
    """tanh, mapped from [-1,1] to [0,1]."""
    return (x.tanh() + 1) / 2


def plan_channels(plan: Mapping[int, tuple[int, ...]], size: int, width: int) -> tuple[int, ...]:
    """The plan's channels for images of `size` pixels. Raises UsageError for a size without a plan, or no width."""
    if size not in plan:
        raise UsageError(f"GAN image size {size} has no channel plan; choose one of {sorted(plan)}")
    if width < 1:
        raise UsageError(f"GAN width {width} is not positive; 64 is the published one, 16 runs on a CPU")
    return tuple(width * factor for factor in plan[size])


def initialised(layer: Layer) -> Layer:
    """Orthogonal weight, zero bias, in place: for linear layers, convolutions and embeddings."""
    assert isinstance(layer.weight, Tensor)
    nn.init.orthogonal_(layer.weight)
    if isinstance(getattr(layer, "bias", None), Tensor):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def normalised(layer: Layer) -> Layer:
    """`initialised`, with spectral norm: one power iteration for each forward pass in training mode."""
    return spectral_norm(initialised(layer), eps=1e-6)  # type: ignore[return-value]


@contextmanager
def seeded(seed: int, key: str) -> Iterator[None]:
    """Layers made inside draw their initial weights from `rng(seed, "gan-init", key)`.

    Layers and spectral_norm take no generator: lend them a seeded default one, then put the caller's back.
    """
    held = torch.default_generator.get_state()
    torch.default_generator.set_state(rng(seed, "gan-init", key).get_state())
    try:
        yield
    finally:
        torch.default_generator.set_state(held)
