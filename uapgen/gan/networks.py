"""SNResGAN (residual blocks; 32, 64 or 128 pixels) and SNDCGAN (deconvolutions; 16 or 32), spectrally normalised.

Miyato et al., "Spectral normalization for generative adversarial networks", 2018, in the forms that Rangwani et al.,
"Class balancing GAN with a classifier in the loop", 2021, used: SNResGAN's channel plans at 64 pixels, SNDCGAN for
CIFAR-10. In SNDCGAN features are summed over pixels, no normalisation stands before the first deconvolution, and both
networks have leaky ReLUs of slope 0.1. 16 pixels are for a CPU.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import SLOPE, DownBlock, UpBlock, initialised, normalised, plan_channels, seeded, to_pixels
from .conditional import DiscriminatorNetwork, GeneratorNetwork, Head, label_norm

# Channels in units of `width`. Generator: at 4x4, then after each doubling. Discriminator: after each block.
SNRES_GENERATOR = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
SNRES_DISCRIMINATOR = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
DOWNSAMPLED = {32: 2, 64: 4, 128: 5}  # how many of the discriminator's blocks, counted from the first, halve the image

# From the latents to the pixels and back.
SNDC_GENERATOR = {16: (4, 2, 1), 32: (8, 4, 2, 1)}
SNDC_DISCRIMINATOR = {16: (1, 2, 4), 32: (1, 2, 4, 8)}


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
        channels = plan_channels(SNRES_GENERATOR, size, width)
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
        channels = (3, *plan_channels(SNRES_DISCRIMINATOR, size, width))
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


class SNDCGenerator(GeneratorNetwork):
    """z (B, latent_dim) -> pixels (B,3,size,size) in [0,1]; 3,812,355 parameters as published (32 pixels, width 64).

    With `num_classes`, batch norm is conditional on labels (B,). The initial weights depend on `seed` alone. Raises
    UsageError for a size without a plan.
    """

    def __init__(
        self,
        latent_dim: int = 128,
        width: int = 64,
        *,
        size: int = 32,
        num_classes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        channels = plan_channels(SNDC_GENERATOR, size, width)
        self.latent_dim, self.size, self.width, self.num_classes = latent_dim, size, width, num_classes
        norm = label_norm(num_classes)
        with seeded(seed, "sndcgan-generator"):
            self.project = initialised(nn.Linear(latent_dim, channels[0] * 16))
            self.deconvolutions = nn.ModuleList(
                initialised(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(channels)
            )
            self.norms = nn.ModuleList(norm(c) for c in channels[1:])
            self.to_rgb = initialised(nn.Conv2d(channels[-1], 3, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = self.condition(labels)
        x = self.project(z).view(len(z), -1, 4, 4)
        for deconvolution, norm in zip(self.deconvolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(deconvolution(x), condition), SLOPE)
        return to_pixels(self.to_rgb(x))


class SNDCDiscriminator(DiscriminatorNetwork):
    """Pixels (B,3,size,size) in [0,1] -> logits (B,); 2,928,193 parameters as published (32 pixels, width 64).

    With `num_classes`, `head` says what is done with labels. The initial weights depend on `seed` alone. Raises
    UsageError for a size without a plan.
    """

    def __init__(
        self,
        width: int = 64,
        *,
        size: int = 32,
        num_classes: int | None = None,
        head: Head = "projection",
        seed: int = 0,
    ) -> None:
        super().__init__()
        *inner, last = (3, *plan_channels(SNDC_DISCRIMINATOR, size, width))
        self.size, self.width = size, width
        with seeded(seed, "sndcgan-discriminator"):
            convolutions: list[nn.Module] = []
            for a, b in pairwise(inner):
                convolutions += [nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 4, stride=2, padding=1)]
            convolutions.append(nn.Conv2d(inner[-1], last, 3, padding=1))
            self.convolutions = nn.ModuleList(map(normalised, convolutions))
            self.add_heads(last, num_classes, head)

    def features(self, x: Tensor) -> Tensor:
        x = 2 * x - 1
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
        return x.sum((2, 3))
