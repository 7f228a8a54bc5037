"""Samples of a conditional generator, with or without its discriminator's judgement."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...errors import UsageError
from ...gan.conditional import DiscriminatorNetwork, GeneratorNetwork, Judgement
from ...gan.networks import sample_latents
from ...runtime import rng


def draw(
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    samples: int | None,
    seed: int,
    batch: int = 100,
    label: int | None = None,
) -> Iterator[tuple[Tensor, Tensor, Judgement]]:
    """Batches of samples, labels (B,) and what the discriminator says; without end if `samples` is None.

    label: of all samples; None draws uniform ones.
    """
    draws, left = rng(seed, "gold-draw", label), samples
    while left is None or left > 0:
        n = batch if left is None else min(batch, left)
        x, y = generated(generator, n, draws, label=label)
        yield x, y, discriminator.judge(x, y)
        left = None if left is None else left - n


def generated(
    generator: GeneratorNetwork, n: int, draws: torch.Generator, *, label: int | None = None
) -> tuple[Tensor, Tensor]:
    """n samples as the generator returns them, and their labels (n,): uniform, or all `label`.

    Raises UsageError for a generator without classes.
    """
    if generator.num_classes is None:
        raise UsageError("this needs a conditional generator; train one with num_classes")
    device = next(generator.parameters()).device
    z = sample_latents(n, generator.latent_dim, draws, device)
    if label is None:
        y = torch.randint(generator.num_classes, (n,), generator=draws, device=draws.device).to(device)
    else:
        y = torch.full((n,), label, device=device)
    return generator(z, y), y
