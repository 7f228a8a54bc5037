"""What the layer methods share: which layers they read, and the course of TRM-UAP, PNM-UAP and PSP-UAP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import UnfitVictimError
from ...victims import Victim
from .curricula import CurriculumPrior, Schedule
from .optimise import gradient_of, optimise
from .plan import CraftPlan
from .run import Crafting
from .selection import StopOnImages, stop_on_images
from .steps import HalvingStep, random_start

# The public runs of TRM-UAP and PSP-UAP end after 2,000 to 4,000 iterations of the 10,000 allowed.
PUBLISHED_ITERATIONS = 4000
SETTLE = 0.9
DOUBLINGS = {"gaussian": (1600, 2400, 3200), "jigsaw": (1600, 3200)}

Loss = Callable[[Tensor], Tensor]
# (delta, priors, image-gradients of the step, published iteration, generator) -> the step's loss
LossOf = Callable[[Tensor, Tensor, int, float, torch.Generator], Loss]


def layer_names(victim: Victim) -> list[str]:
    """`victim.layers()`; raises UnfitVictimError where there is none before the classifier itself."""
    names = victim.layers()
    if not names:
        raise UnfitVictimError(f"{victim.name} has no layers before its classifier; a layer method has nothing to read")
    return names


def need_layers(plan: CraftPlan) -> None:
    """The check of a method that reads layers: raises UnfitVictimError for a victim without any."""
    layer_names(plan.victim)


def first(names: Sequence[str], share: float) -> list[str]:
    """The first `share` (above 0, at most 1) of `names`, at least one."""
    return list(names[: max(1, int(share * len(names) + 1e-6))])


def layer_outputs(victim: Victim, x: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Activations (B,...) of the named layers for victim inputs x (B,3,H,W)."""
    return victim.probe(x, layers=names).layers


def background(victim: Victim, normalise: bool) -> Tensor:
    """The image (1,3,1,1) behind delta alone: the victim's mean colour, which the network sees as zero."""
    return victim.mean if normalise else torch.zeros_like(victim.mean)


def halving_step(run: Crafting, lr: float, stopping: StopOnImages | None) -> HalvingStep:
    """Adam with halving as published: 0.8 instead of half when the next look may end a run of TRM-UAP or PSP-UAP.

    The last tenth of the budget runs without halving: no image decides which pattern to keep, so that the run must not
    end on one that is still growing back.
    """

    def factor() -> float:
        if run.cost.image_gradients > SETTLE * run.budget:
            return 1.0
        return 0.8 if stopping and stopping.cumulative and stopping.on_last_look() else 0.5

    return HalvingStep(lr, run.eps, factor)


def raise_layers(
    run: Crafting,
    stage: str,
    prepare: Callable[[Tensor, torch.Generator], Loss],
    *,
    lr: float,
    stopping: StopOnImages | None,
) -> Tensor:
    """Spends the budget from a uniform start with Adam and halving.

    `prepare(delta, generator)` gives each step's loss of delta (1,3,H,W), to be minimised.
    """
    step = halving_step(run, lr, stopping)

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        delta = step.start(delta)
        towards, value = gradient_of(run, prepare(delta, generator), delta)
        return towards, {"loss": value}

    start = random_start(run.victim.input_size, run.eps, run.rng("start"))
    delta = optimise(run, stage, gradient, delta=start, step=step, images=run.budget, stopping=stopping)
    run.notes["halvings"] = step.halvings
    return delta


def stop_like_gd_uap(run: Crafting, batch: int) -> StopOnImages | None:
    """A look every 400 steps, or ten in a run that is shorter than 4,000; patience 10, reset by an improvement."""
    return stop_on_images(run, every=max(1, min(400, run.budget // batch // 10)), patience=10)


def follow_curriculum(
    run: Crafting,
    stage: str,
    loss_of: LossOf,
    *,
    prior: str,
    normalise: bool,
    lr: float,
    batch: int = 1,
    crops: int = 1,
) -> Tensor:
    """TRM-UAP's course: priors and batches that grow, Adam with halving, an end on --stop-on images (patience 5, never
    reset, a look every 400 published iterations).

    A step takes `batch` priors at first and 4 (jigsaw) or 8 times as many at the end, `crops` image-gradients each.
    `loss_of` prepares a step; the function that it returns is the loss of delta (1,3,H,W), to be minimised.
    """
    priors = CurriculumPrior(run, prior, normalise)
    schedule = Schedule.fit(
        run.budget, batch=batch * crops, doublings=DOUBLINGS[prior], iterations=PUBLISHED_ITERATIONS
    )

    def prepare(delta: Tensor, generator: torch.Generator) -> Loss:
        iteration, n = schedule.at(run.cost.image_gradients)
        n = max(1, min(n, run.budget - run.cost.image_gradients))
        images = priors.batch(-(-n // crops), iteration, generator)
        return loss_of(delta, images, n, iteration, generator)

    stopping = stop_on_images(run, every=schedule.scaled(400), patience=5, cumulative=True)
    return raise_layers(run, stage, prepare, lr=lr, stopping=stopping)
