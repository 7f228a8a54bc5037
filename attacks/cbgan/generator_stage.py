"""cbgan's second stage: a perturbation generator learns patterns on proxy images; its latents are candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ...distributed.rows import sum_gradients
from ...proxies import ProxySource
from ..core.generators import PerturbationGenerator, Training
from ..core.losses import displacement_similarity
from ..core.method import above, at_least, within
from ..core.optimise import repeat
from ..core.run import Crafting
from .objective import Objective
from .refinement import ImagesWithCrops


@dataclass(frozen=True)
class GeneratorStage:
    """How the perturbation generator is trained, and how many patterns it hands on."""

    generator_share: Annotated[float, within(0, 1), "share of the budget that it takes"] = 0.05
    generator_width: Annotated[int, at_least(1, at_most=256), "width of the generator, in channels"] = 16
    generator_lr: Annotated[float, above(0, at_most=1), "learning rate of Adam on the generator's weights"] = 2e-3
    generator_crops: Annotated[float, within(0, 1), "share of its images that are crops of its own patterns"] = 0.0
    diversity: Annotated[float, at_least(0, at_most=1000), "weight of how alike two patterns move the features"] = 0.5
    candidates: Annotated[int, at_least(1, at_most=1000), "patterns that it hands on, beside a random start"] = 4

    def images(self, budget: int, batch: int) -> int:
        """Image-gradients, in whole batches, that the generator takes of `budget`."""
        return int(self.generator_share * budget) // batch * batch


def generate_candidates(
    run: Crafting, proxies: ProxySource, objective: Objective, settings: GeneratorStage, batch: int
) -> list[Tensor]:
    """Patterns (1,C,H,W) of a generator that was trained on `proxies`; none where its share is less than a batch."""
    images = settings.images(run.budget, batch)
    if not images:
        return []
    network = train_generator(run, proxies, objective, settings, batch, images)
    with torch.no_grad():
        return list(network(network.latents(settings.candidates, run.rng("latents"))).split(1))


def train_generator(
    run: Crafting,
    proxies: ProxySource,
    objective: Objective,
    settings: GeneratorStage,
    batch: int,
    images: int,
) -> PerturbationGenerator:
    """Trains z -> eps tanh(...) for `images` image-gradients.

    Each batch holds batch/2 images twice, under two different patterns, so that the diversity term (the cosine between
    the ways in which the two move the features) costs no image-gradient of its own.
    """
    victim = run.victim
    size = (victim.input_size[1], victim.input_size[2])
    network = PerturbationGenerator(size, run.eps, width=settings.generator_width, seed=run.seed).to(victim.device)
    optimizer = torch.optim.Adam(network.parameters(), settings.generator_lr, betas=(0.5, 0.99))

    half = max(1, batch // 2)
    images_with_crops = ImagesWithCrops(run, proxies, half, settings.generator_crops)
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
        (loss + settings.diversity * similarity).backward()
        if victim.shared:
            sum_gradients(optimizer)
        optimizer.step()
        return {"loss": round(loss.item(), 5), "similarity": round(similarity.item(), 4)}

    repeat(run, "generator", Training(network, optimizer), advance, images)
    return network
