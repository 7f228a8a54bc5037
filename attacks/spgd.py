"""SPGD: stochastic projected gradient descent in large batches, the baseline of SGA (Liu et al., ICCV 2023)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .core.losses import affordable, label_gradient, label_loss
from .core.method import above, at_least, one_of, register
from .core.optimise import optimise
from .core.run import Crafting
from .core.steps import SteepestStep


@register("spgd", paper="Liu et al., ICCV 2023", year=2023, images="driven", norms=("linf", "l2"), targeted=True)
def spgd(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step; shrinks where the budget is small"] = 250,
    loss: Annotated[str, one_of("ce", "logit"), "cross-entropy to the class, or its logit"] = "logit",
    clamp: Annotated[float, above(0, at_most=1e6), "cross-entropy beyond which an image stops pulling"] = 9.0,
    step: Annotated[float, above(0, at_most=2), "length of a step, in eps"] = 0.1,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 100,
) -> Tensor:
    """Sign steps of `step` * eps along the gradient of one large batch, from zero: SGA without its inner loop.

    `loss` is `logit` (lower the logit of the victim's own clean prediction, or raise the target's) or `ce`
    (cross-entropy cut at `clamp`). Where the budget would not allow `min_steps` steps, `batch` shrinks until it does:
    published settings assume some 800 steps.
    """
    gradient = label_gradient(run, affordable(batch, run.budget, min_steps), label_loss(loss, run.target, clamp))
    start = torch.zeros(1, *run.victim.input_size)
    return optimise(run, "spgd", gradient, delta=start, step=SteepestStep(step * run.eps, run.norm), images=run.budget)
