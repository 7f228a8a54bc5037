"""cbgan's third stage: refinement of starts by Adam with a falling step on crops of the pattern and proxies; the end
that moves held-out proxies most is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...images.warp import random_shuffle, unchanged
from ...proxies import DeltaCrops, GaussianPrior, PinkNoise, ProxySource
from ..core.held_out import HeldOut
from ..core.optimise import geometric, gradient_of, optimise
from ..core.run import Crafting
from ..core.steps import AdamStep
from .objective import Objective

HELD_OUT_IMAGES = 256
HELD_OUT_SHARE = 7  # image-gradients for each held-out image, at least: small budgets choose on fewer
SEGMENTS = 8


def refine(
    run: Crafting,
    proxies: ProxySource,
    objectives: Sequence[Objective],
    starts: list[Tensor],
    batch: int,
    crops: float,
    lr: tuple[float, float],
    refinement: int,
    shuffle: bool,
) -> Tensor:
    """Refines starts with what is left of the budget, the one that moves held-out proxies most first, and returns the
    end that moves them most: one for every `refinement` image-gradients, and `objectives` take turns.
    `shuffle` has the blocks of the perturbed images change places at every step.
    """
    size, device = run.victim.input_size[1:], run.victim.device
    n = max(batch, min(HELD_OUT_IMAGES, run.budget // HELD_OUT_SHARE))
    images = ImagesWithCrops(run, proxies, batch, crops)
    images.crops = run.draw_from(images.crops)
    held_out = HeldOut(run, PinkNoise(size, device), n, batch)
    starts = [start.to(device) for start in starts]
    scores = [held_out.score(start) for start in starts]
    order = sorted(range(len(starts)), key=lambda i: -scores[i])
    left = run.budget - run.cost.image_gradients
    rounds = max(1, left // refinement)
    ends = []
    for i in range(rounds):
        objective, start = objectives[i % len(objectives)], starts[order[i % len(order)]]
        ends.append(_anneal(run, f"refine{i}", objective, images, start, left // rounds, lr, shuffle))
    reached = [held_out.score(end) for end in ends]
    run.notes["held_out"] = {"starts": scores, "ends": reached, "n": len(held_out.images)}
    return ends[reached.index(max(reached))]


def _anneal(
    run: Crafting,
    stage: str,
    objective: Objective,
    images: ImagesWithCrops,
    delta: Tensor,
    budget: int,
    lr: tuple[float, float],
    shuffle: bool,
) -> Tensor:
    """One refinement by Adam, whose step falls from lr[0] to lr[1] in SEGMENTS equal parts of the budget, or as many
    as it has batches.
    """
    batches = max(1, budget // images.n)
    segments = min(SEGMENTS, batches)
    return optimise(
        run,
        stage,
        lambda d, g: _gradient(run, objective, images, shuffle, d, g),
        delta=delta,
        step=AdamStep(lr[0]),
        images=batches // segments * segments * images.n,
        schedule=geometric(*lr, segments),
    )


def _gradient(
    run: Crafting,
    objective: Objective,
    images: ImagesWithCrops,
    shuffle: bool,
    delta: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Any]]:
    x = images.batch(delta, generator)
    moved = random_shuffle(run.victim.input_size, generator) if shuffle else unchanged
    clean = objective.clean(run, moved(x))
    towards, loss = gradient_of(run, lambda d: objective(run.victim, moved((x + d).clamp(0, 1)), clean)[0], delta)
    return towards, {"loss": loss}


class ImagesWithCrops:
    """Batches of `n` images, the share `crops` of them crops of the pattern that `batch` is given, the rest proxies."""

    def __init__(self, run: Crafting, proxies: ProxySource, n: int, crops: float) -> None:
        prior = GaussianPrior(run.victim.input_size[1:], run.victim.device, std=10)
        self.delta = torch.zeros(1, *run.victim.input_size)
        self.crops: ProxySource = DeltaCrops(prior, lambda: self.delta, crops=n)
        self.proxies, self.n = proxies, n
        self.counts = (round(crops * n), n - round(crops * n))

    def batch(self, delta: Tensor, generator: torch.Generator) -> Tensor:
        """(n,3,H,W) in [0,1] for delta (1,3,H,W)."""
        self.delta = delta
        parts = zip((self.crops, self.proxies), self.counts, strict=True)
        return torch.cat([source.batch(n, generator) for source, n in parts if n])
