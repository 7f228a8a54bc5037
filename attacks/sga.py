"""SGA: stochastic gradient aggregation (Liu et al., ICCV 2023)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from ..perturbation.ball import project
from .core.losses import label_loss, labels_of
from .core.method import above, at_least, one_of, register
from .core.optimise import gradient_of, optimise
from .core.run import Crafting
from .core.steps import SteepestStep, steepest


@register("sga", paper="Liu et al., ICCV 2023", year=2023, images="driven", norms=("linf", "l2"), targeted=True)
def sga(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images an outer step; shrinks where the budget is small"] = 250,
    minibatch: Annotated[int, at_least(1, at_most=10_000), "images an inner step"] = 10,
    passes: Annotated[int, at_least(1, at_most=1000), "how often an outer step walks through its images"] = 4,
    loss: Annotated[str, one_of("ce", "logit"), "cross-entropy to the class, or its logit"] = "ce",
    clamp: Annotated[float, above(0, at_most=1e6), "cross-entropy beyond which an image stops pulling"] = 9.0,
    step: Annotated[float, above(0, at_most=2), "length of a step, in eps"] = 0.1,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 60,
) -> Tensor:
    """Sign steps along gradients that were averaged over an inner run of small noisy minibatches.

    `batch` images an outer step, walked through `passes` times in minibatches of `minibatch` by an inner copy of
    delta that takes its own sign steps; the mean of the inner gradients moves delta by `step` * eps. `loss` is `ce`,
    the cross-entropy against the victim's own clean prediction (or to the target class) cut at `clamp`, or `logit`,
    that class's logit. Where the budget would not allow `min_steps` outer steps, `batch` shrinks until it does:
    published settings assume some 800 steps.
    """
    assert run.source is not None
    batch = max(minibatch, min(batch, run.budget // (min_steps * passes) // minibatch * minibatch))
    source, criterion = run.source, label_loss(loss, run.target, clamp)

    def aggregate(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        images = source.batch(batch, generator)
        labels = labels_of(run, images)
        inner, total, losses = delta, torch.zeros_like(delta), []
        for _ in range(passes):
            for pick in torch.randperm(batch, generator=generator).to(delta.device).split(minibatch):
                x, y = images[pick], labels[pick]

                def value(d: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
                    return criterion(run.victim((x + d).clamp(0, 1)), y)

                towards, figure = gradient_of(run, value, inner)
                inner = project(inner - step * run.eps * steepest(towards, run.norm), run.eps, run.norm)
                total += towards
                losses.append(figure)
        return total, {"loss": round(sum(losses) / len(losses), 5)}

    start = torch.zeros(1, *run.victim.input_size)
    return optimise(run, "sga", aggregate, delta=start, step=SteepestStep(step * run.eps, run.norm), images=run.budget)
