"""cbgan's third stage: refinement of starts by Adam with a falling step on crops of the pattern and proxies; the end
that moves held-out proxies most is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ...images.warp import random_shuffle, unchanged
from ...proxies import DeltaCrops, GaussianPrior, PinkNoise, ProxySource
from ..core.method import above, at_least, within
from ..core.optimise import Gradient, geometric, gradient_of, optimise
from ..core.run import Crafting
from ..core.selection import HeldOut
from ..core.steps import AdamStep
from .objective import Objective

HELD_OUT_IMAGES = 256
HELD_OUT_SHARE = 7  # image-gradients for each held-out image, at least: small budgets choose on fewer
SEGMENTS = 8  # parts of a refinement, each with a smaller step


@dataclass(frozen=True)
class Refinement:
    """How starts are refined: the step, the images, and how often it starts anew."""

    crops: Annotated[float, within(0, 1), "share of each batch that are crops of the pattern itself"] = 0.5
    lr: Annotated[float, above(0, at_most=1), "Adam's first step in pixel units; beyond 2 eps it is bang-bang"] = 0.15
    lr_end: Annotated[float, above(0, at_most=1), "Adam's last step in pixel units"] = 0.005
    refinement: Annotated[int, at_least(1), "image-gradients of one refinement, before the next start"] = 5000
    shuffle: Annotated[bool, "2 x 2 blocks of the perturbed images change places, anew at every step"] = False
    features_by_turns: Annotated[
        float, at_least(0, at_most=1000), "more weight on features in each second refinement"
    ] = 3.0


def refine(
    run: Crafting,
    proxies: ProxySource,
    objective: Objective,
    starts: list[Tensor],
    settings: Refinement,
    batch: int,
) -> Tensor:
    """Refines `starts` (1,C,H,W) with what is left of the budget, the one that moves held-out proxies most first.

    Returns the end that moves them most: there is one for every `settings.refinement` image-gradients.
    """
    size, device = run.victim.input_size[1:], run.victim.device
    n = max(batch, min(HELD_OUT_IMAGES, run.budget // HELD_OUT_SHARE))
    images = ImagesWithCrops(run, proxies, batch, settings.crops)
    images.crops = run.draw_from(images.crops)
    held_out = HeldOut(run, PinkNoise(size, device), n, batch)
    starts = [start.to(device) for start in starts]
    scores = [held_out.score(start) for start in starts]
    order = sorted(range(len(starts)), key=lambda i: -scores[i])
    objectives = (objective, replace(objective, features=objective.features + settings.features_by_turns))

    left = run.budget - run.cost.image_gradients
    rounds = max(1, left // settings.refinement)
    batches = max(1, left // rounds // batch)
    segments = min(SEGMENTS, batches)
    ends = [
        optimise(
            run,
            f"refine{i}",
            _gradient(run, objectives[i % len(objectives)], images, settings.shuffle),
            delta=starts[order[i % len(order)]],
            step=AdamStep(settings.lr),
            images=batches // segments * segments * batch,
            schedule=geometric(settings.lr, settings.lr_end, segments),
        )
        for i in range(rounds)
    ]
    reached = [held_out.score(end) for end in ends]
    run.notes["held_out"] = {"starts": scores, "ends": reached, "n": len(held_out.images)}
    return ends[reached.index(max(reached))]


def _gradient(run: Crafting, objective: Objective, images: ImagesWithCrops, shuffle: bool) -> Gradient:
    """The gradient of `objective` on a batch of `images` and crops of the pattern as it is."""

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        x = images.batch(delta, generator)
        moved = random_shuffle(run.victim.input_size, generator) if shuffle else unchanged
        clean = objective.clean(run, moved(x))
        towards, loss = gradient_of(run, lambda d: objective(run.victim, moved((x + d).clamp(0, 1)), clean)[0], delta)
        return towards, {"loss": loss}

    return gradient


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
