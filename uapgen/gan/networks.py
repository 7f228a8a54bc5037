"""Residual generator and spectrally normalised discriminator (SNResGAN), 32, 64 or 128 pixels.

Miyato et al., "Spectral normalization for generative adversarial networks", 2018, with the channel plans that
Rangwani et al., "Class balancing GAN with a classifier in the loop", 2021, used at 64 pixels.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import SLOPE, DownBlock, UpBlock, initialised, plan_channels, seeded, to_pixels
from .conditional import DiscriminatorNetwork, GeneratorNetwork, Head, label_norm

# Channels in units of `width`. Generator: at 4x4, then after each doubling. Discriminator: after each block.
GENERATOR_PLAN = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
DISCRIMINATOR_PLAN = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
DOWNSAMPLED = {32: 2, 64: 4, 128: 5}  # how many of the discriminator's blocks, counted from the first, halve the image


class SNResGenerator(GeneratorNetwork):
    """z (B, latent_dim) -> pixels (B,3,size,size) in [0,1]: tanh, mapped from [-1,1].

    `width` 64 at 64 pixels is the published network (1024-512-256-128-64 channels); 8 to 16 is enough for a CPU run.
    With `num_classes`, batch norm is conditional on labels (B,). The initial weights depend on `seed` alone. Raises
    UsageError for a size without a plan.
    """

    def __init__(
        self,
        latent_dim: int = 128,
        size: int = 64,
        width: int = 64,
        *,
        num_classes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels = plan_channels(GENERATOR_PLAN, size, width)
        self.latent_dim, self.size, self.width, self.num_classes = latent_dim, size, width, num_classes
        norm = label_norm(num_classes)
        with seeded(seed, "generator"):
            self.project = initialised(nn.Linear(latent_dim, channels[0] * 16))
            self.blocks = nn.Sequential(*(UpBlock(a, b, norm, initialised) for a, b in pairwise(channels)))
            self.norm = norm(channels[-1])
            self.to_rgb = initialised(nn.Conv2d(channels[-1], 3, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = self.condition(labels)
        x = self.project(z).view(len(z), -1, 4, 4)
        for block in self.blocks:
            x = block(x, condition)
        return to_pixels(self.to_rgb(F.leaky_relu(self.norm(x, condition), SLOPE)))


class SNResDiscriminator(DiscriminatorNetwork):
    """Pixels (B,3,size,size) in [0,1] -> logits (B,). Spectral norm in every layer; features are summed over pixels.

    With `num_classes`, `head` says what is done with labels. The initial weights depend on `seed` alone. Raises
    UsageError for a size without a plan.
    """

    def __init__(
        self,
        size: int = 64,
        width: int = 64,
        *,
        num_classes: int | None = None,
        head: Head = "projection",
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels = (3, *plan_channels(DISCRIMINATOR_PLAN, size, width))
        self.size, self.width = size, width
        with seeded(seed, "discriminator"):
            self.blocks = nn.Sequential(
                *(
                    DownBlock(a, b, first=i == 0, down=i < DOWNSAMPLED[size])
                    for i, (a, b) in enumerate(pairwise(channels))
                )
            )
            self.add_heads(channels[-1], num_classes, head)

    def features(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.blocks(2 * x - 1), SLOPE).sum((2, 3))
