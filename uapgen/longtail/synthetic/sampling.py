"""Labelled samples of one class-conditional generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import UsageError
from ...gan import GeneratorNetwork, sample_latents

Sample = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""`sample(n, generator)` -> (n,3,H,W) in [0,1] and labels (n,) int64: what `sampler` returns, or any such function."""


def sampler(generator: GeneratorNetwork, num_classes: int, *, psi: float | None = None) -> Sample:
    """Samples of `generator`, which goes into eval mode, with uniform labels; images stay on its device.

    psi: latents from the normal distribution cut off at |z| = psi (Brock et al., 2019) instead of N(0, I).
    Raises UsageError for a generator of other classes than `num_classes`, or of none, and for psi <= 0.
    """
    if generator.num_classes != num_classes:
        has = f"{generator.num_classes} classes" if generator.num_classes else "no classes"
        raise UsageError(f"the generator has {has}, the data {num_classes}; train one on these classes")
    if psi is not None and not psi > 0:
        raise UsageError(f"truncation psi {psi} is not positive; expected e.g. 1.5, or none")
    generator.eval()

    def sample(n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        device = next(generator.parameters()).device
        labels = torch.randint(num_classes, (n,), generator=draws, device=draws.device).to(device)
        dim = generator.latent_dim
        z = sample_latents(n, dim, draws, device) if psi is None else truncated_latents(n, dim, psi, draws, device)
        with torch.no_grad():
            return generator(z, labels).float(), labels

    return sample


def truncated_latents(
    n: int, dim: int, psi: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """z (n, dim) float32 from N(0, 1) given |z| <= psi, by inverting its distribution function."""
    tail = float(torch.special.ndtr(torch.tensor(-psi, dtype=torch.float64)))
    uniform = torch.rand(n, dim, generator=generator, device=generator.device, dtype=torch.float64)
    z = torch.special.ndtri(tail + (1 - 2 * tail) * uniform)
    return z.float().clamp(-psi, psi).to(device)
