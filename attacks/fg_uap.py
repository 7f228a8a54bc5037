"""FG-UAP: away from the clean features, by their cosine (Ye et al., 2022)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from .core.losses import cosine
from .core.method import above, at_least, register
from .core.optimise import gradient_of, optimise
from .core.run import Crafting
from .core.selection import stop_on_images
from .core.steps import AdamStep, random_start


@register("fg-uap", paper="Ye et al., 2022", year=2022, images="driven", norms=("linf", "l2"), stops=True)
def fg_uap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step"] = 32,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.02,
    weight_decay: Annotated[float, at_least(0, at_most=1000), "pull of delta towards 0"] = 1e-5,
    clip: Annotated[bool, "cut x + delta to [0,1] while crafting"] = False,
    looks: Annotated[int, at_least(1, at_most=10_000), "how often --stop-on images are looked at"] = 10,
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
