"""Cosine-UAP (Zhang et al., ICCV 2021)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .core.method import above, at_least, register
from .core.optimise import gradient_of, optimise
from .core.run import Crafting
from .core.steps import AdamStep, random_start


@register(
    "cosine-uap", paper="Zhang et al., ICCV 2021", year=2021, images="driven", norms=("linf", "l2"), targeted=True
)
def cosine_uap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step"] = 32,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.02,
) -> Tensor:
    """Makes the victim's logits on x + delta point away from those on x: minimises their mean cosine, without labels.

    With a target, which the paper does not have: maximises their cosine to the target's axis. `lr` is Adam's, in [0,1]
    pixel units; the paper does not publish its own.
    """
    assert run.source is not None
    source = run.source

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        images = source.batch(batch, generator)
        away = None if run.target is not None else run.look(run.victim, images)

        def loss(d: Tensor) -> Tensor:
            logits = run.victim((images + d).clamp(0, 1))
            if away is None:
                return -F.normalize(logits)[:, run.target].mean()
            return F.cosine_similarity(logits, away).mean()

        towards, value = gradient_of(run, loss, delta)
        return towards, {"cosine": value}

    # Not zero: the cosine is at its maximum there, and its gradient vanishes.
    start = random_start(run.victim.input_size, run.eps, run.rng("start"), run.norm)
    return optimise(run, "cosine", gradient, delta=start, step=AdamStep(lr, run.norm), images=run.budget)
