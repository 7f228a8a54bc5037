"""The paper's networks: conditional on one-hot labels joined to z, with an auxiliary classifier in the discriminator.

`width` scales them and is 64 as published; initial weights depend on the seed alone. One difference: no batch norm in
the discriminators, which here judge real and generated images in one pass, but the generator's images by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.parametrizations import spectral_norm

from ...errors import UsageError
from ...gan.blocks import seeded, to_pixels
from ...gan.conditional import BatchNorm, DiscriminatorNetwork, GeneratorNetwork

Kind = Literal["points", "grey", "colour"]
SLOPE = 0.2
PUBLISHED = 64
Layer = TypeVar("Layer", bound=nn.Module)
SYNTHETIC = 512  # units of a layer of the networks for points


class GoldGenerator(GeneratorNetwork):
    """z (B, latent_dim) and labels (B,) -> points (B,2) or pixels (B,3,32,32) in [0,1]; grey pixels are repeated."""

    def __init__(self, body: nn.Module, latent_dim: int, num_classes: int, width: int, pixels: bool) -> None:
        super().__init__()
        self.body, self.latent_dim, self.num_classes = body, latent_dim, num_classes
        self.size, self.width, self.pixels = 32 if pixels else 2, width, pixels

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = self.condition(labels)
        assert condition is not None and self.num_classes is not None
        x = self.body(torch.cat([z, one_hot(condition, self.num_classes).to(z.dtype)], 1))
        return to_pixels(x).expand(-1, 3, -1, -1) if self.pixels else x


class GoldDiscriminator(DiscriminatorNetwork):
    """Points (B,2) or pixels (B,3,32,32) -> a logit and class logits. A grey one reads the first channel alone."""

    def __init__(self, body: nn.Module, features: int, num_classes: int, width: int, channels: int | None) -> None:
        super().__init__()
        self.body, self.channels = body, channels
        self.num_classes, self.embedding = num_classes, None
        self.head = _drawn(nn.Linear(features, 1), width)
        self.classifier = _drawn(nn.Linear(features, num_classes), width)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x if self.channels is None else 2 * x[:, : self.channels] - 1)


class Networks(NamedTuple):
    """Makers of both networks for a number of classes and a seed."""

    generator: Callable[[int, int], GoldGenerator]
    discriminator: Callable[[int, int], GoldDiscriminator]


def networks(kind: Kind, *, width: int = PUBLISHED, latent_dim: int = 100) -> Networks:
    """points: MLPs of 3 x 512; grey: InfoGAN's at 32 pixels; colour: ACGAN's at 32 pixels with dropout.

    Raises UsageError for another kind, and for a width or latent_dim below 1.
    """
    if kind not in BODIES or width < 1 or latent_dim < 1:
        given = f"{kind!r} of width {width} with {latent_dim} latents"
        raise UsageError(f"networks {given}; expected points, grey or colour, and at least 1 of both")
    make_g, make_d = BODIES[kind]
    channels = {"points": None, "grey": 1, "colour": 3}[kind]

    def generator(num_classes: int, seed: int) -> GoldGenerator:
        with seeded(seed, f"gold-generator-{kind}"):
            body = make_g(latent_dim + num_classes, width)
            return GoldGenerator(body, latent_dim, num_classes, width, channels is not None)

    def discriminator(num_classes: int, seed: int) -> GoldDiscriminator:
        with seeded(seed, f"gold-discriminator-{kind}"):
            body, features = make_d(width)
            return GoldDiscriminator(body, features, num_classes, width, channels)

    return Networks(generator, discriminator)


def _points_generator(inputs: int, width: int) -> nn.Module:
    sizes = (inputs, *[SYNTHETIC * width // PUBLISHED] * 3)
    return nn.Sequential(*_dense(sizes, width), _drawn(nn.Linear(sizes[-1], 2), width))


def _points_discriminator(width: int) -> tuple[nn.Module, int]:
    sizes = (2, *[SYNTHETIC * width // PUBLISHED] * 3)
    return nn.Sequential(*_dense(sizes, width)), sizes[-1]


def _dense(sizes: tuple[int, ...], width: int) -> list[nn.Module]:
    return [layer for a, b in pairwise(sizes) for layer in (_drawn(nn.Linear(a, b), width), nn.ReLU())]


def _grey_generator(inputs: int, width: int) -> nn.Module:
    wide, deep = 16 * width, 2 * width
    return nn.Sequential(
        *(_drawn(nn.Linear(inputs, wide), width), nn.BatchNorm1d(wide), nn.ReLU()),
        *(_drawn(nn.Linear(wide, deep * 64), width), nn.BatchNorm1d(deep * 64), nn.ReLU()),
        *(nn.Unflatten(1, (deep, 8, 8)), _drawn(nn.ConvTranspose2d(deep, width, 4, 2, 1), width)),
        *(BatchNorm(width), nn.ReLU(), _drawn(nn.ConvTranspose2d(width, 1, 4, 2, 1), width)),
    )


def _grey_discriminator(width: int) -> tuple[nn.Module, int]:
    wide, deep = 16 * width, 2 * width
    body = nn.Sequential(
        *(spectral_norm(_drawn(nn.Conv2d(1, width, 4, 2, 1), width)), nn.LeakyReLU(SLOPE)),
        *(spectral_norm(_drawn(nn.Conv2d(width, deep, 4, 2, 1), width)), nn.LeakyReLU(SLOPE)),
        *(nn.Flatten(), _drawn(nn.Linear(deep * 64, wide), width), nn.LeakyReLU(SLOPE)),
    )
    return body, wide


def _colour_generator(inputs: int, width: int) -> nn.Module:
    channels = tuple(c * width // PUBLISHED for c in (384, 192, 96, 48))
    layers: list[nn.Module] = [_drawn(nn.Linear(inputs, channels[0]), width), nn.Unflatten(1, (channels[0], 1, 1))]
    for i, (a, b) in enumerate(pairwise(channels)):
        up = nn.ConvTranspose2d(a, b, 4, 1, 0) if i == 0 else nn.ConvTranspose2d(a, b, 4, 2, 1)
        layers += [_drawn(up, width), BatchNorm(b), nn.ReLU()]
    return nn.Sequential(*layers, _drawn(nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1), width))


def _colour_discriminator(width: int) -> tuple[nn.Module, int]:
    channels = (3, *(c * width // PUBLISHED for c in (16, 32, 64, 128, 256, 512)))
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(channels)):
        convolution = _drawn(nn.Conv2d(a, b, 3, 2 - i % 2, 1), width)
        layers += [spectral_norm(convolution), nn.LeakyReLU(SLOPE), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Flatten()), channels[-1] * 16


def _drawn(layer: Layer, width: int) -> Layer:
    """Weights from N(0, 0.02), wider in narrow networks so that signals keep their size; biases 0; in place."""
    nn.init.normal_(layer.weight, 0, 0.02 * (PUBLISHED / width) ** 0.5)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


BODIES: dict[str, tuple[Callable[[int, int], nn.Module], Callable[[int], tuple[nn.Module, int]]]] = {
    "points": (_points_generator, _points_discriminator),
    "grey": (_grey_generator, _grey_discriminator),
    "colour": (_colour_generator, _colour_discriminator),
}
