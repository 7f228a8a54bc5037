"""SGD-UAP: sign steps on a clamped cross-entropy (Shafahi et al., AAAI 2020; Co et al., 2020)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .core.losses import affordable, classification, label_gradient
from .core.method import above, at_least, register
from .core.optimise import optimise
from .core.run import Crafting
from .core.steps import SteepestStep


@register(
    "sgd-uap",
    paper="Shafahi et al., AAAI 2020; Co et al., 2020",
    year=2020,
    images="driven",
    norms=("linf", "l2"),
    targeted=True,
)
def sgd_uap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step; shrinks where the budget is small"] = 100,
    beta: Annotated[float, above(0, at_most=1e6), "cross-entropy beyond which an image stops pulling"] = 12.0,
    step: Annotated[float, above(0, at_most=2), "length of a step, in eps"] = 0.8,
    clip: Annotated[bool, "cut x + delta to [0,1] while crafting"] = True,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 200,
) -> Tensor:
    """Sign steps of `step` * eps that maximise the mean of min(cross-entropy, `beta`), from zero.

    Labels are the victim's own clean predictions, where the papers take true ones. A step nearly as wide as the ball
    makes this bang-bang: each step leaves most pixels at the bound. The papers run 200 batches; where the budget would
    not allow `min_steps`, `batch` shrinks until it does.
    """
    gradient = label_gradient(
        run,
        affordable(batch, run.budget, min_steps),
        lambda logits, labels: classification(logits, labels, run.target, beta),
        clip=clip,
    )
    start = torch.zeros(1, *run.victim.input_size)
    return optimise(run, "sgd", gradient, delta=start, step=SteepestStep(step * run.eps, run.norm), images=run.budget)
