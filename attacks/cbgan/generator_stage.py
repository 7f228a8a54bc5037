"""cbgan's second stage: a perturbation generator learns patterns on proxy images; its latents are candidates."""

from __future__ import annotations

from typing import Any

import torch

from ...distributed.sums import sum_gradients
from ...proxies import ProxySource
from ..core.generators import PerturbationGenerator, Training
from ..core.losses import displacement_similarity
from ..core.optimise import repeat
from ..core.run import Crafting
from .objective import Objective
from .refinement import ImagesWithCrops


def train_latents(
    run: Crafting,
    source: ProxySource,
    objective: Objective,
    *,
    images: int,
    batch: int,
    lr: float,
    diversity: float,
    width: int,
    crops: float,
) -> PerturbationGenerator:
    """Trains z -> eps tanh(...) for `images` image-gradients.

    Each batch holds batch/2 images twice, under two different patterns, so that the diversity term (the cosine between
    the ways in which the two move the features) costs no image-gradient of its own.
    """
    victim = run.victim
    size = (victim.input_size[1], victim.input_size[2])
    network = PerturbationGenerator(size, run.eps, width=width, seed=run.seed).to(victim.device)
    optimizer = torch.optim.Adam(network.parameters(), lr, betas=(0.5, 0.99))

    half = max(1, batch // 2)
    images_with_crops = ImagesWithCrops(run, source, half, crops)
    # Crops are of the pattern at latent zero: one that the network has now, at no cost.
    middle = torch.zeros(1, network.latent_dim, device=victim.device)

    def advance(generator: torch.Generator) -> dict[str, Any]:
        with torch.no_grad():
            x = images_with_crops.batch(network(middle), generator).repeat(2, 1, 1, 1)
        clean = objective.clean(run, x)
        unmoved = clean.features[:half] if clean else run.look(victim.features, x[:half])
        deltas = network(network.latents(2, generator)).repeat_interleave(half, 0)
        loss, probe = objective(victim, (x + deltas).clamp(0, 1), clean)
        similarity = displacement_similarity(unmoved, *probe.features.chunk(2))
        optimizer.zero_grad()
        (loss + diversity * similarity).backward()
        if victim.shared:
            sum_gradients(optimizer)
        optimizer.step()
        return {"loss": round(loss.item(), 5), "similarity": round(similarity.item(), 4)}

    repeat(run, "generator", Training(network, optimizer), advance, images)
    return network
