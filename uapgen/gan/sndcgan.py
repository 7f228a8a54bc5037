"""SNDCGAN at 32 pixels (or 16, for a CPU): deconvolutions against a spectrally normalised stack of convolutions.

Miyato et al., "Spectral normalization for generative adversarial networks", 2018, in the form that Rangwani et al.,
"Class balancing GAN with a classifier in the loop", 2021, used for CIFAR-10: features are summed over pixels, no
normalisation before the first deconvolution, leaky ReLU of slope 0.1 in both networks.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import SLOPE, initialised, normalised, plan_channels, seeded, to_pixels
from .conditional import DiscriminatorNetwork, GeneratorNetwork, Head, label_norm

# Channels in units of `width`, from the latents to the pixels and back.
GENERATOR_PLAN = {16: (4, 2, 1), 32: (8, 4, 2, 1)}
DISCRIMINATOR_PLAN = {16: (1, 2, 4), 32: (1, 2, 4, 8)}


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
        channels = plan_channels(GENERATOR_PLAN, size, width)
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
        *inner, last = (3, *plan_channels(DISCRIMINATOR_PLAN, size, width))
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
