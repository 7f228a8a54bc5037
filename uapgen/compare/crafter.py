"""Crafting one perturbation of a comparison, in a folder from which it goes on after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..attacks import check_craft, craft
from ..errors import UnfitVictimError
from ..perturbation import Perturbation
from ..proxies import Folder, ProxySource, parse_source
from ..victims import Victim
from .plan import ImportSpec, Task
from .store import Clock, Store

FRACTIONS = (16, 8, 4, 2)  # a pattern is kept at each of these fractions of the budget, for the curves

Callback = Callable[[str, int, int, dict[str, Any]], None]  # as craft()'s; the stage begins with the task's title


@dataclass
class Crafter:
    """Crafts tasks on `victims` (by name), all with the same bound and budget; `train_data` is a folder."""

    store: Store
    victims: dict[str, Victim]
    train_data: str | None
    eps: float
    norm: str
    budget: int
    callback: Callback | None = None
    _sources: dict[tuple[str, str], ProxySource] = field(default_factory=dict)

    @property
    def marks(self) -> list[int]:
        """Image-gradients at which a marked task's pattern is kept."""
        return sorted({self.budget // fraction for fraction in FRACTIONS} - {0})

    def check(self, task: Task) -> None:
        """Raises now what would be raised after hours: UsageError, or UapgenError for folders and files."""
        if isinstance(task.spec, ImportSpec):
            task.spec.load(self.eps, self.norm)
        else:
            victim, source, arguments = self._arguments(task)
            own = {"source": source, **arguments}
            with suppress(UnfitVictimError):  # a row that fails, while the others go on
                check_craft(victim, method=task.spec.name, eps=self.eps, norm=self.norm, budget=self.budget, **own)

    def craft(self, task: Task, marked: bool = False) -> Perturbation:
        """Raises UapgenError when the method cannot do it. `seconds` says how long it took, interruptions left out."""
        assert not isinstance(task.spec, ImportSpec) and task.seed is not None
        victim, source, arguments = self._arguments(task)
        if isinstance(source, Folder):
            _ = source.pixels  # decoded now: it is nobody's crafting time, and only the first would pay it
        clock = Clock(self._clock(task))

        def progress(stage: str, done: int, total: int, figures: dict[str, Any]) -> None:
            clock.tick()
            if self.callback:
                self.callback(f"{task.title}, {stage}", done, total, figures)

        try:
            return craft(
                victim,
                method=task.spec.name,
                source=source,
                eps=self.eps,
                norm=self.norm,
                seed=task.seed,
                budget=self.budget,
                marks=self.marks if marked else (),
                folder=self.store.craft(task.key),
                callback=progress,
                **arguments,
            )
        finally:
            clock.tick(now=True)

    def seconds(self, task: Task) -> float | None:
        """Wall time of crafting on this machine; None for what was not crafted here."""
        return Clock.read(self._clock(task))

    def _clock(self, task: Task) -> Path:
        return self.store.craft(task.key) / "clock.json"

    def _arguments(self, task: Task) -> tuple[Victim, ProxySource | None, dict[str, Any]]:
        assert not isinstance(task.spec, ImportSpec) and task.victim is not None and task.seed is not None
        text = task.spec.source
        if task.spec.learns and self.train_data is not None:
            text = f"driven:{self.train_data}"
        return self.victims[task.victim], self._source(task.victim, text), task.spec.arguments(task.seed)

    def _source(self, name: str, text: str | None) -> ProxySource | None:
        if text is not None and (name, text) not in self._sources:
            victim = self.victims[name]
            made = parse_source(text, victim.input_size[1:], victim.device, transform=victim.transform)
            self._sources[name, text] = made
        return self._sources[name, text] if text is not None else None
