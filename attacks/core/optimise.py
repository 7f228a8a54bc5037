"""The one loop behind every method: gradient, step, project, count, log, save, go on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import UapgenError
from ...perturbation.ball import project
from .run import Crafting
from .steps import Step, saturation
from .stopping import StopOnImages

Gradient = Callable[[Tensor, torch.Generator], tuple[Tensor, dict[str, Any]]]


class State(Protocol):
    """What a stage remembers between iterations."""

    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: dict[str, Tensor]) -> None: ...


def repeat(
    run: Crafting,
    stage: str,
    state: State,
    advance: Callable[[torch.Generator], dict[str, Any]],
    images: int,
    finished: Callable[[], bool] = lambda: False,
) -> None:
    """Calls `advance(generator)` until `images` image-gradients are spent in this stage, as the victim counts them.

    Every iteration draws from a generator seeded by (seed, stage, iteration), so that a resumed stage ends in the
    bytes of an uninterrupted one. `advance` returns figures for the log. `finished()`, a function of what `state`
    saves, ends the stage early.
    """
    iteration, done, unsaved = 0, 0, 0
    if held := run.saved(stage):
        tensors, meta = held
        iteration, done = meta["iteration"], meta["done"]
        state.load(tensors)
    while done < images and not finished():
        before, passes, drawn = run.cost.image_gradients, run.cost.passes.copy(), run.record.images
        figures = advance(run.rng(stage, iteration))
        iteration += 1
        run.record.step(stage, run.cost.passes - passes, run.record.images - drawn)
        spent = run.cost.image_gradients - before
        done, unsaved = done + spent, unsaved + spent
        run.report(stage, min(done, images), images, figures)
        if unsaved >= run.save_every or done >= images or finished():
            run.save(stage, state.tensors(), iteration=iteration, done=done)
            unsaved = 0


class _Delta:
    def __init__(self, delta: Tensor, step: Step, stopping: StopOnImages | None) -> None:
        self.delta, self.step, self.stopping = delta, step, stopping

    def tensors(self) -> dict[str, Tensor]:
        stopping = self.stopping.tensors() if self.stopping else {}
        return {"delta": self.delta, **self.step.tensors(), **stopping}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.delta = tensors.pop("delta")
        if self.stopping:
            self.stopping.load(tensors)
        self.step.load(tensors)


def optimise(
    run: Crafting,
    stage: str,
    gradient: Gradient,
    *,
    delta: Tensor,
    step: Step,
    images: int,
    stopping: StopOnImages | None = None,
) -> Tensor:
    """Minimises a loss over delta (1,C,H,W) by projected steps until `images` image-gradients are spent in this stage.

    `gradient(delta, generator) -> (gradient, figures)` spends them; use `gradient_of`. With `stopping` the stage may
    end before, and the best delta on its images is returned instead of the last. Raises UapgenError when the gradient
    is not finite.
    """
    state = _Delta(run.tied(delta.to(run.victim.device)), step, stopping)

    def advance(generator: torch.Generator) -> dict[str, Any]:
        towards, figures = gradient(state.delta, generator)
        if not torch.isfinite(towards).all():
            raise UapgenError(f"{stage}: the gradient is not finite; try --precision fp32")
        state.delta = project(step(state.delta, towards), run.eps, run.norm)
        run.snapshot(state.delta)
        if stopping:
            figures = {**figures, **stopping.look(state.delta)}
        return {**figures, "saturation": round(saturation(state.delta, run.eps), 4)}

    repeat(run, stage, state, advance, images, stopping.finished if stopping else lambda: False)
    if stopping is None:
        return state.delta
    if stopping.finished():
        run.stopped = "no better on --stop-on images"
    return stopping.best(state.delta)


def gradient_of(run: Crafting, loss: Callable[[Tensor], Tensor], delta: Tensor) -> tuple[Tensor, float]:
    """d loss / d delta, tied over tiles and summed over processes, and the loss itself."""
    variable = delta.detach().requires_grad_(True)
    value = loss(variable)
    (towards,) = torch.autograd.grad(value, variable)
    return run.tied(run.victim.summed([towards])[0]), round(value.item(), 6)
