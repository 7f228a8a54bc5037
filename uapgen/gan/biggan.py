"""BigGAN-type networks at 32 and 64 pixels: one class embedding shared by all batch norms, spectral norm in both.

Brock et al., "Large scale GAN training for high fidelity natural image synthesis", 2019, without self-attention, which
the authors' CIFAR network (32 pixels, width 64) does without too; at 64 pixels its absence is a difference.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from .blocks import DownBlock, UpBlock, initialised, normalised, plan_channels, seeded, to_pixels
from .conditional import BatchNorm, ConditionalBatchNorm, DiscriminatorNetwork, GeneratorNetwork, Head

# Channels in units of `width`. Generator: at 4x4, then after each doubling. Discriminator: after each block.
GENERATOR_PLAN = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2)}
DISCRIMINATOR_PLAN = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16)}
DOWNSAMPLED = {32: 2, 64: 4}


class BigGenerator(GeneratorNetwork):
    """z (B, latent_dim) and labels (B,) -> pixels (B,3,size,size) in [0,1].

    z_dim: hierarchical latents split it evenly over the first layer and the blocks, each block's part joining the
        class embedding; otherwise all of it goes into the first layer.
    noise: standard deviations (K,) of Gaussian noise on the class embedding (see `spectral.noise_scale`). The noise is
        read from the last `embed_dim` entries of z, so that z and the label alone decide the image, and `latent_dim`
        is z_dim + embed_dim.

    The initial weights depend on `seed` alone. Raises UsageError for a size without a plan, for a z_dim that does not
    split, and for noise of another length than `num_classes`.
    """

    noise: Tensor | None

    def __init__(
        self,
        num_classes: int,
        size: int = 32,
        width: int = 64,
        *,
        z_dim: int = 80,
        embed_dim: int = 80,
        hierarchical: bool = True,
        noise: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels = plan_channels(GENERATOR_PLAN, size, width)
        parts = len(channels) if hierarchical else 1
        if z_dim % parts:
            raise UsageError(f"z_dim {z_dim} does not split into {parts} equal parts; take a multiple of {parts}")
        if noise is not None and noise.shape != (num_classes,):
            raise UsageError(
                f"noise has shape {tuple(noise.shape)}, expected one number for each of {num_classes} classes"
            )
        self.size, self.width, self.num_classes, self.z_dim = size, width, num_classes, z_dim
        self.part = z_dim // parts
        self.latent_dim = z_dim + (embed_dim if noise is not None else 0)
        self.register_buffer("noise", noise)
        norm = partial(_vector_norm, embed_dim + (self.part if hierarchical else 0))
        with seeded(seed, "biggan-generator"):
            self.embedding = initialised(nn.Embedding(num_classes, embed_dim))
            self.project = normalised(nn.Linear(self.part, channels[0] * 16))
            self.blocks = nn.ModuleList(UpBlock(a, b, norm, normalised, slope=0) for a, b in pairwise(channels))
            self.norm = BatchNorm(channels[-1])
            self.to_rgb = normalised(nn.Conv2d(channels[-1], 3, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        checked = self.condition(labels)
        assert checked is not None
        embedded = self.embedding(checked)
        if self.noise is not None:
            embedded = embedded + self.noise[checked].unsqueeze(1) * z[:, self.z_dim :]
        first, *others = z[:, : self.z_dim].split(self.part, 1)
        x = self.project(first).view(len(z), -1, 4, 4)
        for i, block in enumerate(self.blocks):
            x = block(x, torch.cat([embedded, others[i]], 1) if others else embedded)
        return to_pixels(self.to_rgb(F.relu(self.norm(x))))

    def class_conditions(self) -> Tensor:
        """What the batch norms are given for each class, (K, dim), where the latents' part is at its mean, zero."""
        weight = self.embedding.weight
        return torch.cat([weight, weight.new_zeros(len(weight), self.part)], 1) if self.part < self.z_dim else weight


class BigDiscriminator(DiscriminatorNetwork):
    """Pixels (B,3,size,size) in [0,1] -> logits (B,), with a projection head (or an auxiliary one).

    The initial weights depend on `seed` alone. Raises UsageError for a size without a plan.
    """

    def __init__(
        self,
        num_classes: int | None,
        size: int = 32,
        width: int = 64,
        *,
        head: Head = "projection",
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels = (3, *plan_channels(DISCRIMINATOR_PLAN, size, width))
        self.size, self.width = size, width
        with seeded(seed, "biggan-discriminator"):
            self.blocks = nn.Sequential(
                *(
                    DownBlock(a, b, first=i == 0, down=i < DOWNSAMPLED[size], slope=0)
                    for i, (a, b) in enumerate(pairwise(channels))
                )
            )
            self.add_heads(channels[-1], num_classes, head)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.blocks(2 * x - 1)).sum((2, 3))


def _vector_norm(dim: int, channels: int) -> ConditionalBatchNorm:
    gain, bias = (normalised(nn.Linear(dim, channels, bias=False)) for _ in range(2))
    return ConditionalBatchNorm(channels, gain, bias)
