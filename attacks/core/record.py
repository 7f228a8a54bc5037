"""What a run did, for its card: the stages that ran, their steps and batches, and the sources that it drew from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...proxies import ProxySource

Range = tuple[int, int]  # the least and the most


@dataclass
class Stage:
    """What the steps of a stage came to: backward passes through the victim, and images drawn from the run's sources.

    `batch` is the range of images a backward pass, `images` of images drawn a step; None before the first.
    """

    steps: int = 0
    passes: int = 0
    image_gradients: int = 0
    batch: Range | None = None
    images: Range | None = None

    def add(self, passes: Counter[int], images: int) -> None:
        """Adds a step of `passes` (by the size of their batch) that drew `images` images."""
        self.steps += 1
        self.passes += passes.total()
        self.image_gradients += sum(size * n for size, n in passes.items())
        self.batch = _widened(self.batch, passes)
        self.images = _widened(self.images, [images])

    def as_dict(self) -> dict[str, Any]:
        """As JSON; without the ranges that say nothing: no backward pass, no image drawn."""
        parts = {"steps": self.steps, "passes": self.passes, "image_gradients": self.image_gradients}
        batch = {"batch": list(self.batch)} if self.batch else {}
        return {**parts, **batch, **({"images": list(self.images)} if self.images and self.images[1] else {})}

    @classmethod
    def of(cls, held: dict[str, Any]) -> Stage:
        """The stage that `as_dict` described."""
        batch, images = (tuple(held[key]) if key in held else None for key in ("batch", "images"))
        no_images = (0, 0) if held["steps"] else None
        return cls(held["steps"], held["passes"], held["image_gradients"], batch, images or no_images)


class Drawn:
    """A source that a run draws from: what it says of itself is what `source` says, and every draw is counted."""

    def __init__(self, source: ProxySource, record: Record) -> None:
        self.source, self._record = source, record

    @property
    def data_class(self) -> str:
        return self.source.data_class

    def describe(self) -> dict[str, Any]:
        return self.source.describe()

    def batch(self, n: int, generator: torch.Generator, **how: Any) -> Tensor:
        """Images (n,3,H,W) of the source, which may take more arguments. Its own draws from others do not count."""
        outer, self._record.inside = self._record.inside, True
        try:
            images = self.source.batch(n, generator, **how)
        finally:
            self._record.inside = outer
        self._record.images += 0 if outer else n
        return images


@dataclass
class Record:
    """The stages and the sources of a run, in the order of their first use.

    Stages are saved with the run's states; sources are named anew by the same calls of the method when a run goes on.
    `complete` is false for a run that goes on from states without a record, as earlier versions left them.
    """

    stages: dict[str, Stage] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)
    images: int = 0  # drawn so far
    inside: bool = False  # a source is drawing: what it draws from others is not the run's
    complete: bool = True
    _spoken_for: list[ProxySource] = field(default_factory=list)

    def draw_from(self, source: ProxySource, made_of: Iterable[ProxySource | None] = ()) -> Drawn:
        """`source`, noted; those that it is `made_of` are not named beside it, because it describes them."""
        self._spoken_for += [_bare(part) for part in made_of if part is not None]
        bare = _bare(source)
        for known in self.drawn:
            if known.source is bare:
                return known
        self.drawn.append(Drawn(bare, self))
        return self.drawn[-1]

    @property
    def sources(self) -> list[ProxySource]:
        """Those that the card names."""
        return [drawn for drawn in self.drawn if not any(drawn.source is part for part in self._spoken_for)]

    def step(self, stage: str, passes: Counter[int], images: int) -> None:
        """Adds to `stage` a step of `passes` (by the size of their batch) that drew `images` images."""
        self.stages.setdefault(stage, Stage()).add(passes, images)

    def state(self) -> dict[str, Any]:
        return {name: stage.as_dict() for name, stage in self.stages.items()}

    def load(self, state: dict[str, Any] | None) -> None:
        """The reverse of `state`; None for one that was saved without."""
        self.stages = {name: Stage.of(held) for name, held in (state or {}).items()}
        self.complete = self.complete and state is not None

    def effective(self, layers: Iterable[str]) -> dict[str, Any]:
        """The card's entry: `steps` and `batch` of all stages, whether a `gan` was trained for it, the `stages` one by
        one, and the `layers` that were read.
        """
        sizes = [size for stage in self.stages.values() for size in stage.batch or ()]
        return {
            "steps": sum(stage.steps for stage in self.stages.values()),
            **({"batch": [min(sizes), max(sizes)]} if sizes else {}),
            "gan": "gan" in self.stages,
            "stages": [{"name": name, **stage.as_dict()} for name, stage in self.stages.items()],
            **({"layers": list(layers)} if layers else {}),
        }


def _bare(source: ProxySource) -> ProxySource:
    return source.source if isinstance(source, Drawn) else source


def _widened(known: Range | None, values: Iterable[int]) -> Range | None:
    seen = [*(known or ()), *values]
    return (min(seen), max(seen)) if seen else None
