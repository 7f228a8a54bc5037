"""Networks that make patterns within the budget, and how a method trains one and keeps its state."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...distributed.rows import sum_gradients
from ...errors import UapgenError
from ...proxies import ProxySource
from ...runfolder import load_optimizer_tensors, optimizer_tensors
from ...runtime import rng
from .run import Crafting

TRIES = 20


class Training:
    """A network and its optimiser, as the state of `repeat`."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"net.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return {**weights, **optimizer_tensors(self.optimizer, "adam")}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.network.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        load_optimizer_tensors(self.optimizer, "adam", tensors)


def step(run: Crafting, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of `optimizer` down `loss`. Raises UapgenError for a loss that is not finite."""
    if not torch.isfinite(loss):
        raise UapgenError("the generator's loss is not finite; try --precision fp32, or a smaller lr")
    optimizer.zero_grad()
    loss.backward()
    if run.victim.shared:
        sum_gradients(optimizer)
    optimizer.step()


def offer(run: Crafting, pattern: Callable[[], Tensor]) -> None:
    """`run.snapshot` of a pattern (1,C,H,W) that takes a forward pass of the network: only where somebody asked."""
    if run.snapshots and run.snapshots.marks:
        with torch.no_grad():
            run.snapshot(pattern())


def strength(patterns: Tensor, eps: float) -> float:
    """Mean |delta| / eps. A tanh never quite meets the bound, so that the share of pixels there says nothing."""
    return round((patterns.detach().abs().mean() / eps).item(), 4)


def shrunk(batch: int, images: int, min_steps: int, least: int = 4) -> int:
    """The largest even batch up to `batch` that leaves `min_steps` steps within `images`, but no less than `least`."""
    return max(least, min(batch, images // min_steps)) // 2 * 2


class Without:
    """`source` without the images `held` (n,C,H,W), as far as they come out of it again.

    Folders draw with replacement: an image that was set aside for choosing would turn up in training too. Raises
    UapgenError, at a draw, when nearly nothing else is left.
    """

    def __init__(self, source: ProxySource, held: Tensor) -> None:
        self.source = source
        self._held = _fingerprints(held)

    @property
    def data_class(self) -> str:
        return self.source.data_class

    def describe(self) -> dict[str, Any]:
        return self.source.describe()

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,C,H,W) float32 in [0,1], none of them among those held back."""
        parts: list[Tensor] = []
        missing = n
        for _ in range(TRIES):
            images = self.source.batch(missing, generator)
            parts.append(images[~torch.isin(_fingerprints(images), self._held)])
            missing -= len(parts[-1])
            if not missing:
                return torch.cat(parts)
        raise UapgenError(
            f"hardly an image is left beside the {len(self._held)} held back for choosing a pattern;"
            " give more images, or a smaller held_out"
        )


def _fingerprints(images: Tensor) -> Tensor:
    """One integer an image, equal for equal pixels whatever the batch: sums of integers have no order."""
    pixels = (images * 255).round().long().flatten(1)
    weights = torch.arange(pixels.shape[1], device=images.device) * 40503 % 65521 + 1
    return (pixels * weights).sum(1)


class PerturbationGenerator(nn.Module):
    """z (B,latent_dim) -> delta (B,3,H,W) with |delta| <= eps.

    Residual upsampling blocks, as image generators have, but with group norm: a pattern may not depend on the other
    patterns in its batch. Like NAG's (Mopuri et al., CVPR 2018) it adds fresh noise maps, here fixed per network, at
    every scale, since a convolutional net makes high frequencies reluctantly and perturbations live on them.

    `centred` takes each feature's mean over the pixels away before the last layer. Without it all features there are
    positive on average, Adam moves all weights on them the same way, and within ten steps the pattern may be one
    colour, the same for all latents, that saturates the tanh: then no gradient comes through any more.
    """

    def __init__(
        self,
        size: tuple[int, int],
        eps: float,
        *,
        latent_dim: int = 16,
        width: int = 16,
        centred: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.size, self.eps, self.latent_dim, self.centred = size, eps, latent_dim, centred
        doublings = max(2, round(math.log2(max(size) / 7)))
        channels = [min(width * 2 ** (doublings - i), 8 * width) for i in range(doublings + 1)]
        self.first = tuple(math.ceil(n / 2**doublings) for n in size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng(seed, "perturbation-generator").initial_seed())
            self.project = nn.Linear(latent_dim, channels[0] * self.first[0] * self.first[1])
            nn.init.normal_(self.project.weight)  # latents must outweigh the biases, or all patterns are one
            self.blocks = nn.ModuleList(_Block(a, b) for a, b in pairwise(channels))
            self.to_rgb = nn.Conv2d(channels[-1], 3, 3, padding=1)
            for i, (c, _) in enumerate(zip(channels[1:], self.blocks, strict=True)):
                h, w = (n * 2 ** (i + 1) for n in self.first)
                self.register_buffer(f"noise{i}", torch.randn(1, max(1, c // 4), h, w))

    def forward(self, z: Tensor) -> Tensor:
        x = self.project(z).view(len(z), -1, *self.first)
        for i, block in enumerate(self.blocks):
            x = block(x, getattr(self, f"noise{i}"))
        if self.centred:
            x = x - x.mean((2, 3), keepdim=True)
        h, w = self.size
        pattern: Tensor = self.eps * self.to_rgb(x)[..., :h, :w].tanh()
        return pattern

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """z ~ U(-1,1), (n, latent_dim), as NAG has it."""
        z = torch.rand(n, self.latent_dim, generator=generator) * 2 - 1
        return z.to(next(self.parameters()).device)


class _Block(nn.Module):
    """Upsample, mix with the noise map, convolve. Output channels include a quarter of noise-driven ones."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.noise = nn.Conv2d(max(1, outputs // 4), outputs, 1)
        with torch.no_grad():
            self.noise.weight.mul_(0.3)  # the same for all latents, so it must not drown them
        self.norm = nn.GroupNorm(math.gcd(4, outputs), outputs)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        x = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return F.leaky_relu(self.norm(x + self.noise(noise)), 0.2)


class ResnetGenerator(nn.Module):
    """Pictures (B,3,H,W) -> (B,3,H,W) in [-1,1]: the residual network of style transfer and of GAP.

    Johnson et al., ECCV 2016, as Poursaeed et al., CVPR 2018, use it: a 7x7 convolution, two that halve the picture,
    `blocks` residual ones, two that double it, 7x7 and tanh. `width` 64 is the published one. Instance norm, since
    GAP's batch norm sees copies of one noise image, which comes to the same.
    """

    def __init__(self, *, width: int = 64, blocks: int = 6, seed: int = 0) -> None:
        super().__init__()
        w = width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng(seed, "resnet-generator").initial_seed())
            layers: list[nn.Module] = [nn.Conv2d(3, w, 7, 1, 3, padding_mode="reflect"), *_norm_relu(w)]
            for n in (2 * w, 4 * w):
                layers += [nn.Conv2d(n // 2, n, 3, 2, 1), *_norm_relu(n)]
            layers += [_Residual(4 * w) for _ in range(blocks)]
            for n in (2 * w, w):
                layers += [nn.ConvTranspose2d(2 * n, n, 3, 2, 1, output_padding=1), *_norm_relu(n)]
            layers += [nn.Conv2d(w, 3, 7, 1, 3, padding_mode="reflect"), nn.Tanh()]
            self.layers = nn.Sequential(*layers)
            for module in self.layers.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(module.weight, 0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return made[..., : x.shape[-2], : x.shape[-1]]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, padding_mode="reflect"),
            *_norm_relu(channels),
            nn.Conv2d(channels, channels, 3, 1, 1, padding_mode="reflect"),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.main(x)
        return x + change


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels, affine=True), nn.ReLU()]
