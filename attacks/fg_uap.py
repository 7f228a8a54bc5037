"""FG-UAP: away from the clean features, by their cosine (Ye et al., 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .core.losses import cosine
from .core.method import register
from .core.optimise import gradient_of, optimise
from .core.run import Crafting
from .core.steps import AdamStep, random_start
from .core.stopping import stop_on_images


@register("fg-uap", paper="Ye et al., 2022", year=2022, images="driven", norms=("linf", "l2"), stops=True)
def fg_uap(
    run: Crafting,
    *,
    batch: int = 32,
    lr: float = 0.02,
    weight_decay: float = 1e-5,
    clip: bool = False,
    looks: int = 10,
) -> Tensor:
    """Minimises the mean cosine between the penultimate features of x + delta and of x, without labels.

    `lr` is Adam's, in [0,1] pixel units. The paper leaves x + delta unclipped while crafting (`clip`) and keeps the
    best of its two epochs on validation images; here the best of `looks` looks at --stop-on images, where the user
    names some, and the last pattern else.
    """
    assert run.source is not None
    source, victim = run.source, run.victim

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        images = source.batch(batch, generator)
        clean = run.look(victim.features, images)

        def loss(d: Tensor) -> Tensor:
            x = images + d
            return cosine(clean, victim.features(x.clamp(0, 1) if clip else x))

        towards, value = gradient_of(run, loss, delta)
        return towards + weight_decay * delta, {"cosine": value}

    # Not zero: the cosine is at its maximum there, and its gradient vanishes.
    start = random_start(victim.input_size, run.eps, run.rng("start"), run.norm)
    every = max(1, run.budget // batch // looks)
    return optimise(
        run,
        "fg",
        gradient,
        delta=start,
        step=AdamStep(lr, run.norm, betas=(0.9, 0.999)),
        images=run.budget,
        stopping=stop_on_images(run, every=every, patience=looks + 1),
    )
