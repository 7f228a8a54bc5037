"""The one loop behind every method: gradient, step, project, count, log, save, go on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UapgenError
from ..proxies import ProxySource
from ..runfolder import RunFolder
from ..runtime import rng
from ..victims import Victim
from .snapshots import Snapshots
from .steps import Step, project, saturation, tie
from .stopping import StopOnImages

Callback = Callable[[str, int, int, dict[str, Any]], None]  # stage, images done, images in all, figures
Gradient = Callable[[Tensor, torch.Generator], tuple[Tensor, dict[str, Any]]]


@dataclass
class Cost:
    """What a run has spent on the victim, in images: with a backward pass, and forward only."""

    image_gradients: int = 0
    image_forwards: int = 0

    def as_dict(self) -> dict[str, int]:
        return {"image_gradients": self.image_gradients, "image_forwards": self.image_forwards}


@dataclass
class Crafting:
    """Everything that a method shares with all others: the victim, the images, the budget and the run's place on
    disk.
    """

    victim: Victim
    source: ProxySource | None
    eps: float
    seed: int
    budget: int
    norm: str = "linf"
    target: int | None = None  # the class that every image shall go to; None: away from its own
    tile: int = 1  # delta repeats tile x tile times (TSC-UAP)
    stop_on: ProxySource | None = None  # images whose fooling rate stops and selects, for methods that stop so
    folder: RunFolder | None = None
    callback: Callback | None = None
    save_every: int = 480
    stopped: str = "budget"
    cost: Cost = field(default_factory=Cost)
    sources: list[ProxySource] = field(
        default_factory=list
    )  # all that the run drew from, for the card; empty: just `source`
    notes: dict[str, Any] = field(
        default_factory=dict
    )  # figures that belong into the card; must not depend on time or host
    snapshots: Snapshots | None = None

    def rng(self, *key: object) -> torch.Generator:
        return rng(self.seed, *key)

    def tied(self, delta: Tensor) -> Tensor:
        """`delta` (B,C,H,W) averaged over its tiles, where the run asks for a tiled pattern; differentiable."""
        return tie(delta, self.tile)

    def snapshot(self, delta: Tensor) -> None:
        """Offers the pattern (1,C,H,W) that the method would return if it ended here, for curves over cost."""
        if self.snapshots:
            self.snapshots.offer(self.cost.image_gradients, lambda: project(self.tied(delta), self.eps, self.norm))

    def report(self, stage: str, done: int, total: int, figures: dict[str, Any]) -> None:
        if self.folder:
            self.folder.log(stage=stage, images=done, **self.cost.as_dict(), **figures)
        if self.callback:
            self.callback(stage, done, total, figures)

    def saved(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The stage's last saved state on the victim's device; the cost is set back to what it was then."""
        held = self.folder.load(stage) if self.folder else None
        if held is None:
            return None
        tensors, meta = held
        self.cost = Cost(**meta["cost"])
        return {key: value.to(self.victim.device) for key, value in tensors.items()}, meta

    def save(self, stage: str, tensors: dict[str, Tensor], **meta: Any) -> None:
        if self.folder:
            self.folder.save(stage, tensors, {"cost": self.cost.as_dict(), **meta})


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
    """Calls `advance(generator)` until `images` image-gradients are spent in this stage; it counts them in `run.cost`.

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
        before = run.cost.image_gradients
        figures = advance(run.rng(stage, iteration))
        iteration += 1
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


def gradient_of(run: Crafting, loss: Callable[[Tensor], Tensor], delta: Tensor, images: int) -> tuple[Tensor, float]:
    """d loss / d delta, tied over tiles, and the loss itself; counts `images` image-gradients."""
    variable = delta.detach().requires_grad_(True)
    value = loss(variable)
    (towards,) = torch.autograd.grad(value, variable)
    run.cost.image_gradients += images
    return run.tied(towards), round(value.item(), 6)
