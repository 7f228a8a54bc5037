"""The one loop behind every method: gradient, step, project, count, log, save, go on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...errors import UapgenError
from ...perturbation.ball import project
from .run import Crafting
from .selection import StopOnImages
from .steps import Step, saturation

Gradient = Callable[[Tensor, torch.Generator], tuple[Tensor, dict[str, Any]]]


class State(Protocol):
    """What a stage remembers between iterations."""

    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: dict[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class Staircase:
    """Step sizes over a stage, in pixel units: one for each of len(sizes) equal parts of its image-gradients.

    Every part draws like a stage of its own: from a generator seeded by (seed, "STAGE.PART", iteration), with
    iterations counted from the start of the part.
    """

    sizes: tuple[float, ...]

    def part(self, done: int, images: int) -> int:
        """The index of the part in which a stage of `images` image-gradients is after `done` of them."""
        return min(done * len(self.sizes) // images, len(self.sizes) - 1)

    def lr(self, done: int, images: int) -> float:
        """The size of the next step after `done` of `images` image-gradients."""
        return self.sizes[self.part(done, images)]


def geometric(start: float, end: float, parts: int) -> Staircase:
    """From `start` in the first of `parts` to `end` in the last, by the same factor from each part to the next."""
    return Staircase(tuple(start * (end / start) ** (i / max(1, parts - 1)) for i in range(parts)))


def repeat(
    run: Crafting,
    stage: str,
    state: State,
    advance: Callable[[torch.Generator], dict[str, Any]],
    images: int,
    finished: Callable[[], bool] = lambda: False,
    key: Callable[[int], str] | None = None,
) -> None:
    """Calls `advance(generator)` until `images` image-gradients are spent in this stage, as the victim counts them.

    Every iteration draws from a generator seeded by (seed, stage, iteration), so that a resumed stage ends in the
    bytes of an uninterrupted one. `key(done)`, where given, stands for the stage in that seed after `done`
    image-gradients; iterations are counted from the last change of the key. `advance` returns figures for the log.
    `finished()`, a function of what `state` saves, ends the stage early.
    """
    key = key or (lambda done: stage)
    iteration, done, unsaved = 0, 0, 0
    if held := run.saved(stage):
        tensors, meta = held
        iteration, done = meta["iteration"], meta["done"]
        state.load(tensors)
    while done < images and not finished():
        before, passes, drawn = run.cost.image_gradients, run.cost.passes.copy(), run.record.images
        figures = advance(run.rng(key(done), iteration))
        run.record.step(stage, run.cost.passes - passes, run.record.images - drawn)
        spent = run.cost.image_gradients - before
        iteration = iteration + 1 if key(done + spent) == key(done) else 0
        done, unsaved = done + spent, unsaved + spent
        run.report(stage, min(done, images), figures)
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
    schedule: Staircase | None = None,
    stopping: StopOnImages | None = None,
) -> Tensor:
    """Minimises a loss over delta (1,C,H,W) by projected steps until `images` image-gradients are spent in this stage.

    `gradient(delta, generator) -> (gradient, figures)` spends them; use `gradient_of`. A `schedule` sets `step.lr`,
    whose other state goes on from part to part. With `stopping` the stage may end before, and the best delta on its
    images is returned instead of the last. Raises UapgenError when the gradient is not finite.
    """
    state = _Delta(run.tied(delta.to(run.victim.device)), step, stopping)
    began = run.cost.image_gradients  # the same in a resumed run: the stages before have set it to what it was

    def key(done: int) -> str:
        return f"{stage}.{schedule.part(done, images)}" if schedule else stage

    def advance(generator: torch.Generator) -> dict[str, Any]:
        if schedule:
            step.lr = schedule.lr(run.cost.image_gradients - began, images)
        towards, figures = gradient(state.delta, generator)
        if not torch.isfinite(towards).all():
            raise UapgenError(f"{stage}: the gradient is not finite; try --precision fp32")
        state.delta = project(step(state.delta, towards), run.eps, run.norm)
        run.snapshot(state.delta)
        if stopping:
            figures = {**figures, **stopping.look(state.delta)}
        if schedule:
            figures = {**figures, "lr": float(f"{step.lr:.4g}")}
        return {**figures, "saturation": round(saturation(state.delta, run.eps), 4)}

    repeat(run, stage, state, advance, images, stopping.finished if stopping else lambda: False, key)
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
