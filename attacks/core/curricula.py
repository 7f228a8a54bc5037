"""Courses that the papers give in iterations, and the images that grow richer along them: noise, jigsaws, blurs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...images.warp import augmented
from ...proxies import GaussianPrior, JigsawPrior
from ...victims import Victim
from .run import Crafting


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


RANGE_STD = 127.5 / 3.29  # levels: 99.9 % of the samples are pixels


def unnormalised(victim: Victim, x: Tensor) -> Tensor:
    """Pixels for which the network behind `victim` sees `x` (B,3,H,W) itself.

    The public code of several layer methods feeds pixels without mean and standard deviation, that is, at about a
    quarter of the contrast at which the pattern is evaluated. Where a method's published result depends on it, the
    method has a parameter `normalise`, false by default.
    """
    return x * victim.std + victim.mean


def shown(victim: Victim, pixels: Tensor, normalise: bool) -> Tensor:
    """What to give the victim for image + delta (B,3,H,W): clipped to [0,1], or the raw input of the public code."""
    return pixels.clamp(0, 1) if normalise else unnormalised(victim, pixels)


class CurriculumPrior:
    """TRM-UAP's artificial images, or the user's own where the run has a source.

    `jigsaw`: 1 cut per axis, one more every 600 published iterations up to 8. `gaussian`: spread 10 levels, 10 more
    every 400 up to 127, then scaled, flipped, rotated and blurred at random. Without normalisation the Gaussian is
    shifted to mean 0, and the jigsaw is not, as in the public code.
    """

    def __init__(self, run: Crafting, prior: str, normalise: bool) -> None:
        size, device = run.victim.input_size[1:], run.victim.device
        self.jigsaw = JigsawPrior(size, device, frequency=(1, 8))
        self.gaussian = GaussianPrior(size, device, std=(10.0, 127.0))
        self.kind = prior
        self.shift = 0.0 if normalise else 0.5
        self.given = run.source is not None
        self.source = run.draw_from(run.source or (self.jigsaw if prior == "jigsaw" else self.gaussian))

    def batch(self, n: int, iteration: float, generator: torch.Generator) -> Tensor:
        """(n,3,H,W) for the published `iteration`."""
        if self.given:
            return self.source.batch(n, generator)
        if self.kind == "jigsaw":
            return self.source.batch(n, generator, frequency=min(8, 1 + int(iteration / 600)))
        noise = self.source.batch(n, generator, std=min(127.0, 10.0 + 10 * int(iteration / 400)))
        return augmented(noise.flip(1), generator) - self.shift


class RangePrior:
    """GD-UAP's range prior: random crops of one large Gaussian image, scaled, flipped, rotated and blurred.

    The image is three times as wide and high as the victim's input, with mean 127.5 and the spread for which 99.9 % of
    its values are pixels.
    """

    data_class = "none"

    def __init__(self, run: Crafting) -> None:
        self.size, self.device = run.victim.input_size[1:], run.victim.device
        canvas = torch.randn(3, 3 * self.size[0], 3 * self.size[1], generator=run.rng("range-prior"))
        self.canvas = (0.5 + RANGE_STD / 255 * canvas).clamp(0, 1)

    def describe(self) -> dict[str, object]:
        return {"source": "range-prior", "size": list(self.size), "std_255": round(RANGE_STD, 2)}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) in [0,1]."""
        rows, columns = (
            torch.randint(0, 2 * side + 1, (n, 1), generator=generator) + torch.arange(side) for side in self.size
        )
        crops = self.canvas[:, rows.unsqueeze(2), columns.unsqueeze(1)].movedim(1, 0)
        return augmented(crops.to(self.device), generator)
