"""SPGD: stochastic projected gradient descent in large batches, the baseline of SGA (Liu et al., ICCV 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from .core.labels import affordable, label_gradient, label_loss
from .core.method import register
from .core.optimise import optimise
from .core.run import Crafting
from .core.steps import SteepestStep


@register("spgd", paper="Liu et al., ICCV 2023", year=2023, images="driven", norms=("linf", "l2"), targeted=True)
def spgd(
    run: Crafting,
    *,
    batch: int = 250,
    loss: str = "logit",
    clamp: float = 9.0,
    step: float = 0.1,
    min_steps: int = 100,
) -> Tensor:
    """Sign steps of `step` * eps along the gradient of one large batch, from zero: SGA without its inner loop.

    `loss` is `logit` (lower the logit of the victim's own clean prediction, or raise the target's) or `ce`
    (cross-entropy cut at `clamp`). Where the budget would not allow `min_steps` steps, `batch` shrinks until it does:
    published settings assume some 800 steps.

    Raises UsageError for another `loss`.
    """
    gradient = label_gradient(run, affordable(batch, run.budget, min_steps), label_loss(loss, run.target, clamp))
    start = torch.zeros(1, *run.victim.input_size)
    return optimise(run, "spgd", gradient, delta=start, step=SteepestStep(step * run.eps, run.norm), images=run.budget)
