"""Samples of a generator, labelled or not, and sheets of them in one picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import UsageError
from ..runtime import atomic_write
from .conditional import GeneratorNetwork

Labels = int | Literal["uniform", "first", "turns"]
"""Of all samples one class, or: uniform, drawn after the latents or `first`; or the classes in turns, without draws."""

Sampler = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""`sample(n, generator)` -> images (n,3,H,W) in [0,1] (or points) and labels (n,) int64; `sampler` makes one."""


def sample_latents(
    n: int, dim: int, generator: torch.Generator, device: torch.device | str = "cpu", *, psi: float | None = None
) -> Tensor:
    """z ~ N(0, I), (n, dim) float32; drawn where the generator lives, so a CPU one gives every device the same z.

    psi: from N(0, 1) given |z| <= psi, by inverting its distribution function (Brock et al., 2019).
    """
    if psi is None:
        return torch.randn(n, dim, generator=generator, device=generator.device).to(device)
    tail = float(torch.special.ndtr(torch.tensor(-psi, dtype=torch.float64)))
    uniform = torch.rand(n, dim, generator=generator, device=generator.device, dtype=torch.float64)
    z = torch.special.ndtri(tail + (1 - 2 * tail) * uniform)
    return z.float().clamp(-psi, psi).to(device)


def latents_and_labels(
    network: GeneratorNetwork,
    n: int,
    draws: torch.Generator,
    device: torch.device | str,
    *,
    labels: Labels = "uniform",
    psi: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """z (n, latent_dim), and the labels (n,) int64 that go with it; None for a network without classes.

    psi: see `sample_latents`. Raises UsageError for a label that the network does not have.
    """
    k = network.num_classes
    if isinstance(labels, int) and (k is None or not 0 <= labels < k):
        kind = "without labels" if k is None else f"of {k} classes"
        raise UsageError(f"label {labels} cannot be asked of a generator {kind}")
    first = _uniform(n, k, draws) if k is not None and labels == "first" else None
    z = sample_latents(n, network.latent_dim, draws, device, psi=psi)
    if k is None:
        return z, None
    if isinstance(labels, int):
        return z, torch.full((n,), labels, device=device)
    if labels == "turns":
        return z, torch.arange(n, device=device) % k
    return z, (_uniform(n, k, draws) if first is None else first).to(device)


def samples(
    network: GeneratorNetwork, n: int, draws: torch.Generator, *, labels: Labels = "uniform", psi: float | None = None
) -> tuple[Tensor, Tensor]:
    """n images as the network returns them, and their labels (n,), on its device.

    Raises UsageError for a network without classes, and as `latents_and_labels` does.
    """
    if network.num_classes is None:
        raise UsageError("this needs a conditional generator; train one with num_classes")
    device = next(network.parameters()).device
    z, y = latents_and_labels(network, n, draws, device, labels=labels, psi=psi)
    assert y is not None
    return network(z, y), y


def sampler(network: GeneratorNetwork, *, labels: Labels = "uniform", psi: float | None = None) -> Sampler:
    """`samples` of a network, which goes into eval mode, without gradients. Raises UsageError for psi <= 0."""
    if psi is not None and not psi > 0:
        raise UsageError(f"truncation psi {psi} is not positive; expected e.g. 1.5, or none")
    network.eval()

    def sample(n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x, y = samples(network, n, draws, labels=labels, psi=psi)
        return x.float(), y

    return sample


def _uniform(n: int, num_classes: int, draws: torch.Generator) -> Tensor:
    return torch.randint(num_classes, (n,), generator=draws, device=draws.device)


def save_grid(images: Tensor, path: str | Path, *, columns: int | None = None) -> None:
    """Images (N,3,H,W) in [0,1] as one PNG, row by row without gaps; nearly square unless `columns` is given."""
    from PIL import Image

    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    levels = images.detach().float().cpu().clamp(0, 1).mul(255).round().byte()
    levels = pad(levels, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(images)))
    _, channels, height, width = levels.shape
    tiles = levels.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    sheet = tiles.reshape(rows * height, columns * width, channels).numpy()
    with atomic_write(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
