"""Curricula that the papers give in iterations, walked through in shares of a smaller budget."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Schedule:
    """Where a run stands in the published one, by what it has spent; nothing to save.

    `stages` are (published iteration at which it begins, images a step), the last one without an end. `scale` is how
    many iterations this run makes for one published iteration, at most 1.
    """

    stages: tuple[tuple[float, int], ...]
    scale: float

    @classmethod
    def fit(
        cls, budget: int, *, batch: int, doublings: tuple[int, ...], iterations: int, min_steps: int = 100
    ) -> Schedule:
        """The published course, compressed where `budget` image-gradients are less than it would cost.

        The published run takes `iterations`, and `batch` images a step, twice as many from each of `doublings`
        (iterations) on. Where the budget would not allow `min_steps` steps, doublings are left out from the last on,
        and then `batch` shrinks.
        """
        for kept in range(len(doublings), -1, -1):
            begins = [0.0, *(float(begin) for begin in doublings[:kept])]
            stages = tuple((begin, batch * 2**k) for k, begin in enumerate(begins))
            steps = _steps(stages, iterations, budget)
            if steps >= min_steps:
                return cls(stages, min(1.0, steps / iterations))
        batch = max(1, budget // min_steps)
        return cls(((0.0, batch),), min(1.0, budget / (iterations * batch)))

    def at(self, spent: int) -> tuple[float, int]:
        """(published iteration, images of the next step) after `spent` image-gradients."""
        left = float(spent)
        for (begin, images), (end, _) in pairwise(self.stages):
            cost = (end - begin) * self.scale * images
            if left < cost:
                return begin + left / (self.scale * images), images
            left -= cost
        begin, images = self.stages[-1]
        return begin + left / (self.scale * images), images

    def scaled(self, iterations: int) -> int:
        """How many steps of this run are `iterations` published ones; at least one."""
        return max(1, round(iterations * self.scale))


def _steps(stages: tuple[tuple[float, int], ...], iterations: int, budget: int) -> float:
    """How many steps `budget` images make when each stage keeps its share of `iterations`."""
    ends = [begin for begin, _ in stages[1:]] + [float(iterations)]
    cost = sum((end - begin) * images for (begin, images), end in zip(stages, ends, strict=True))
    return iterations * budget / cost
