"""SGD-UAP: sign steps on a clamped cross-entropy (Shafahi et al., AAAI 2020; Co et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from .core.labels import affordable, label_gradient
from .core.losses import classification
from .core.method import register
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
    run: Crafting, *, batch: int = 100, beta: float = 12.0, step: float = 0.8, clip: bool = True, min_steps: int = 200
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
