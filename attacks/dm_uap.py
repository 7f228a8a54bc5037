"""DM-UAP: dynamic maximin, against models and images that are made harder to fool first (AAAI 2025)."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..victims import Victim
from .core.losses import affordable, classification, predict
from .core.method import above, at_least, register, within
from .core.optimise import gradient_of, optimise
from .core.run import Crafting
from .core.steps import AdamStep, random_start

PAPER_PIXELS = 3 * 224 * 224


class Twin:
    """A copy of the victim whose weights may move; the victim itself never changes."""

    def __init__(self, victim: Victim) -> None:
        self.victim = copy.copy(victim)
        self.victim.module = copy.deepcopy(victim.module)
        self.weights: list[Tensor] = list(self.victim.module.parameters())
        self._originals: list[Tensor] = list(victim.module.parameters())

    def restore(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self._originals)

    def descend(self, images: Tensor, labels: Tensor, *, radius: float, steps: int, smoothing: float) -> None:
        """Weights that classify `images` as `labels` better, at most `radius` (L2, over all) from where they are.

        `smoothing` of the label goes to all classes alike; negative values sharpen it.
        """
        self.victim.module.requires_grad_(True)
        for _ in range(steps):
            log_p = F.log_softmax(self.victim(images), 1)
            own = log_p.gather(1, labels[:, None]).mean()
            loss = -(1 - smoothing) * own - smoothing * log_p.mean()
            found = torch.autograd.grad(loss, self.weights, allow_unused=True)
            moving = [(w, g) for w, g in zip(self.weights, found, strict=True) if g is not None]
            whole = self.victim.summed([g for _, g in moving])
            pairs = list(zip([w for w, _ in moving], whole, strict=True))
            length = torch.stack([g.norm() for _, g in pairs]).norm() + 1e-12
            with torch.no_grad():
                for weight, gradient in pairs:
                    weight.sub_(gradient * (radius / steps / length))
        self.victim.module.requires_grad_(False)

    def friendlier(self, images: Tensor, labels: Tensor, *, radius: float, steps: int) -> Tensor:
        """Images (B,3,H,W) in [0,1] that the twin classifies as `labels` better, each within `radius` (L2) of its own.

        Steps of radius/8 along the direction of each image's gradient.
        """
        x = images
        for _ in range(steps):
            variable = x.detach().requires_grad_(True)
            (down,) = torch.autograd.grad(F.cross_entropy(self.victim(variable), labels, reduction="sum"), variable)
            (down,) = self.victim.summed([down])
            moved = x - radius / 8 * down / _lengths(down) - images
            x = (images + moved * (radius / _lengths(moved)).clamp_max(1)).clamp(0, 1)
        return x


def _lengths(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1).clamp_min(1e-10).view(-1, 1, 1, 1)


@register("dm-uap", paper="Zhang et al., AAAI 2025", year=2025, images="driven", norms=("linf", "l2"), targeted=True)
def dm_uap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step; shrinks where the budget is small"] = 125,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.1,
    clamp: Annotated[float, above(0, at_most=1e6), "cross-entropy beyond which an image stops pulling"] = 9.0,
    model_radius: Annotated[float, at_least(0, at_most=1000), "how far the weights move, L2"] = 4.0,
    model_steps: Annotated[int, at_least(0, at_most=1000), "steps of the weights a batch"] = 10,
    data_radius: Annotated[float, at_least(0, at_most=1000), "how far images move, L2 at 224x224"] = 25.0,
    data_steps: Annotated[int, at_least(0, at_most=1000), "steps of the images a batch"] = 10,
    smoothing: Annotated[float, within(-1, 1), "share of the label for all classes; below 0 sharpens it"] = 0.2,
    stages: Annotated[int, at_least(1, at_most=1_000_000), "stairs in which both radii grow"] = 20,
    clip: Annotated[bool, "cut x + delta to [0,1] while crafting"] = False,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 25,
) -> Tensor:
    """Steps against the worst model and images nearby, for a pattern that generalises from few images.

    For each batch the weights of a copy of the victim descend the label-smoothed loss on the clean images
    (`model_steps` within `model_radius`), then the images descend theirs (`data_steps` within `data_radius`, L2 in
    [0,1] pixels of a 224x224 image, scaled to the victim's size); delta takes one Adam step that raises min(CE,
    `clamp`) on that pair, and the weights go back. Both radii grow in `stages` equal stairs over the budget. The
    published `lr` is wider than the ball: bang-bang. Labels are the victim's own clean predictions.

    Every backward pass counts, model_steps + data_steps + 1 an image, so 6,000 image-gradients are only 285 images:
    `batch` shrinks until there are `min_steps` steps, and fewer inner steps give more of them. Batch statistics stay
    the victim's (the published code lets them follow the batch, which asks for a large one), and Adam's decoupled
    weight decay is left out: it shrinks delta by a thousandth a step.
    """
    assert run.source is not None
    source, twin = run.source, Twin(run.victim)
    passes = model_steps + data_steps + 1
    batch = affordable(batch, run.budget, passes * min_steps)
    scale = math.sqrt(math.prod(run.victim.input_size) / PAPER_PIXELS)

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        ramp = min(1.0, (1 + stages * run.cost.image_gradients // run.budget) / stages)
        images = source.batch(batch, generator)
        labels = predict(run, images)
        with run.one_draw():
            twin.descend(images, labels, radius=ramp * model_radius, steps=model_steps, smoothing=smoothing)
            x = twin.friendlier(images, labels, radius=ramp * scale * data_radius, steps=data_steps)

        def loss(d: Tensor) -> Tensor:
            logits = twin.victim((x + d).clamp(0, 1) if clip else x + d)
            return classification(logits, labels, run.target, clamp)

        towards, value = gradient_of(run, loss, delta)
        twin.restore()
        return towards, {"loss": value, "ramp": ramp}

    start = random_start(run.victim.input_size, run.eps, run.rng("start"), run.norm)
    step = AdamStep(lr, run.norm, betas=(0.9, 0.999))
    return optimise(run, "dm", gradient, delta=start, step=step, images=run.budget)
