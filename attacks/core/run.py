"""What every method is handed: the victim (behind defences, where it crafts through them), the images, the budget, and
the run's place on disk with its snapshots.

Through defences: the expectation over transformations (Athalye et al., ICML 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...defences import Defence
from ...distributed import from_main, is_main
from ...perturbation.ball import project
from ...proxies import ProxySource
from ...runfolder import RunFolder, load_state, save_state
from ...runtime import rng
from ...victims import Cost, Victim
from .record import Drawn, Record, Stage
from .steps import tie

Seen = TypeVar("Seen")
# Stage, image-gradients that the run has spent, its budget, the iteration's figures.
Callback = Callable[[str, int, int, dict[str, Any]], None]


@dataclass
class Crafting:
    """Everything that a method shares with all others: the victim, the images, the budget and the run's place on
    disk.

    `victim` counts into `cost` whatever passes through it or a copy of it. `given` are the user's images: methods take
    them from `source`, and their own from `draw_from`, so that the card names what a run drew from.
    """

    victim: Victim
    given: ProxySource | None
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
    record: Record = field(default_factory=Record)  # what was done
    notes: dict[str, Any] = field(
        default_factory=dict
    )  # figures that belong into the card; must not depend on time or host
    snapshots: Snapshots | None = None

    def __post_init__(self) -> None:
        self.victim = self.victim.counted(self.cost)
        self._draw: tuple[int, int] | None = None

    @property
    def source(self) -> ProxySource | None:
        """The user's images, if there are any; from the first question on they count as drawn from."""
        return None if self.given is None else self.draw_from(self.given)

    def draw_from(self, source: ProxySource, made_of: Iterable[ProxySource | None] = ()) -> Drawn:
        """`source`, to be drawn from: the card names it. What it is `made_of` counts for the data class too, but is
        not named beside it.
        """
        return self.record.draw_from(source, made_of)

    def rng(self, *key: object) -> torch.Generator:
        return rng(self.seed, *key)

    def tied(self, delta: Tensor) -> Tensor:
        """`delta` (B,C,H,W) averaged over its tiles, where the run asks for a tiled pattern; differentiable."""
        return tie(delta, self.tile)

    def snapshot(self, delta: Tensor) -> None:
        """Offers the pattern (1,C,H,W) that the method would return if it ended here, for curves over cost."""
        if self.snapshots:
            self.snapshots.offer(self.cost.image_gradients, lambda: project(self.tied(delta), self.eps, self.norm))

    def look(self, view: Callable[[Tensor], Seen], images: Tensor) -> Seen:
        """`view(images)`, forward passes of the victim without a gradient, for images (B,...) that meet one draw of the
        defences.
        """
        with self.one_draw(len(images)), torch.no_grad():
            return view(images)

    @contextmanager
    def one_draw(self, images: int = 0) -> Iterator[None]:
        """All passes inside meet the same draw of the defences that are crafted through: the one that is due when
        `images` more images have gone forward.
        """
        self._draw = (self.cost.image_gradients, self.cost.image_forwards + images)
        try:
            yield
        finally:
            self._draw = None

    def defence_rng(self) -> torch.Generator:
        """Draws a defence for the batch that comes. Keyed by what has been spent, which a resumed run knows: it draws
        what the uninterrupted one would have drawn.
        """
        return self.rng("through", *(self._draw or self.cost.as_dict().values()))

    def account(self, stage: str, batch: int, *, steps: int, passes: int, image_forwards: int) -> None:
        """Counts a stage of `steps` steps, `passes` of them with `batch` image-gradients, whose result may come from a
        cache: it costs what its making cost.
        """
        self.cost.back_propagated(batch, passes)
        self.cost.image_forwards += image_forwards
        self.record.stages[stage] = Stage(steps, passes, batch * passes, (batch, batch))

    def report(self, stage: str, done: int, figures: dict[str, Any], *, uncounted: int = 0) -> None:
        """Tells log and callback of an iteration, after `done` image-gradients of its stage; `uncounted` of them are
        not in the cost yet.
        """
        if self.folder:
            self.folder.log(stage=stage, images=done, **self.cost.as_dict(), **figures)
        if self.callback:
            spent = min(self.cost.image_gradients + uncounted, self.budget)
            self.callback(stage, spent, self.budget, figures)

    def saved(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The stage's last saved state on the victim's device; the cost is set back to what it was then."""
        folder = self.folder
        held = from_main(lambda: folder.load(stage)) if folder else None
        if held is None:
            return None
        tensors, meta = held
        self.cost.image_gradients, self.cost.image_forwards = (meta["cost"][key] for key in self.cost.as_dict())
        self.cost.layers = dict.fromkeys(meta.get("layers", ()))
        self.record.load(meta.get("stages"))
        return {key: value.to(self.victim.device) for key, value in tensors.items()}, meta

    def save(self, stage: str, tensors: dict[str, Tensor], **meta: Any) -> None:
        if self.folder:
            done = {"cost": self.cost.as_dict(), "layers": list(self.cost.layers), "stages": self.record.state()}
            self.folder.save(stage, tensors, {**done, **meta})


class Snapshots:
    """Keeps the first pattern offered at or after each of `marks` (image-gradients), as `folder`/at-MARK.safetensors.

    Written at once, and not again after an interruption: a resumed run offers the same patterns.
    """

    def __init__(self, folder: str | Path, marks: Sequence[int]) -> None:
        self.folder, self.marks = Path(folder), sorted(marks)

    def offer(self, image_gradients: int, delta: Callable[[], Tensor]) -> None:
        for mark in self.marks if is_main() else ():
            if image_gradients >= mark and not self._file(mark).is_file():
                self.folder.mkdir(parents=True, exist_ok=True)
                save_state(self._file(mark), {"delta": delta()}, {"image_gradients": image_gradients})

    def read(self) -> list[tuple[int, Tensor]]:
        """(image-gradients, delta (1,C,H,W)) of what is there, in order of cost."""
        states = [load_state(self._file(mark)) for mark in self.marks if self._file(mark).is_file()]
        return [(meta["image_gradients"], tensors["delta"]) for tensors, meta in states]

    def _file(self, mark: int) -> Path:
        return self.folder / f"at-{mark}.safetensors"


def behind(victim: Victim, defences: Sequence[Defence], draw: Callable[[], torch.Generator]) -> Victim:
    """`victim` behind one of `defences`, drawn anew for every batch from `draw()`: what any method then attacks.

    Both images and perturbed images pass, as they do in an evaluation behind a defence; codecs and roundings are
    replaced by forms that have a gradient. Weights are shared, and `victim` itself stays as it is.
    """

    def transform(x: Tensor) -> Tensor:
        generator = draw()
        chosen = defences[int(torch.randint(len(defences), (), generator=generator))]
        return chosen.crafted_through(x, generator)

    defended = copy.copy(victim)
    defended.before, defended.through = transform, [defence.name for defence in defences]
    return defended
