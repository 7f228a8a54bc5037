"""The figures of a hardening run, and its one delta for all images, climbing the loss by signed steps: against weights
that move, or that rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..attacks.core.steps import steepest
from ..errors import UsageError
from ..images.sets import Batch, ImageSet
from ..perturbation.ball import check_eps, project
from ..runtime import rng
from ..victims import Victim


@dataclass(frozen=True)
class Settings:
    """`eps` and `delta_step` (None: eps) in pixel units, [0,1]; `steps` are pairs of a step on delta and one on the
    weights, over `batch` images each; `held_out` is the share of the images that only measures.

    Raises UsageError for values that make no sense.
    """

    eps: float
    steps: int
    batch: int = 32
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    delta_step: float | None = None
    update_batch_norm: bool = False
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_eps(self.eps)
        step = self.delta_step
        limits = {
            "steps": (self.steps, self.steps >= 1, "1 or more"),
            "batch": (self.batch, self.batch >= 1, "1 or more"),
            "lr": (self.lr, self.lr > 0 and math.isfinite(self.lr), "above 0"),
            "momentum": (self.momentum, 0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
            "delta_step": (step, step is None or 0 < step <= 2, "above 0, in pixel units"),
            "held_out": (self.held_out, 0 < self.held_out < 1, "a share between 0 and 1"),
        }
        for name, (value, fits, expected) in limits.items():
            if not fits:
                raise UsageError(f"{name} {value} is not possible; expected {expected}")


def ascend(victim: Victim, x: Tensor, classes: Tensor, delta: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """delta (1,3,H,W) after a signed step up the cross-entropy to `classes` (B,) of x + delta cut to [0,1], and back
    into the ball; and the loss before the step.
    """
    trial = delta.detach().requires_grad_()
    loss = functional.cross_entropy(victim((x + trial).clamp(0, 1)), classes)
    (gradient,) = torch.autograd.grad(loss, trial)
    size = settings.eps if settings.delta_step is None else settings.delta_step
    return project(delta + size * steepest(gradient), settings.eps), loss.detach()


def fresh_delta(victim: Victim, images: ImageSet, settings: Settings, steps: int, workers: int | None = None) -> Tensor:
    """A delta (1,3,H,W) of `steps` steps of `ascend` against the victim as it is: what an attacker makes of it."""
    delta = torch.zeros(1, *victim.input_size, device=victim.device)
    labels = torch.tensor(images.labels, device=victim.device)
    for batch in batches(images, settings, 0, steps, workers):
        if batch.images is not None:
            x = pixels(batch.images, victim)
            classes = targets(victim, x, labels[batch.positions.to(victim.device)])
            delta, _ = ascend(victim, x, classes, delta, settings)
    return delta


def targets(victim: Victim, x: Tensor, labels: Tensor) -> Tensor:
    """(B,) classes: `labels` where they are known, the victim's own for the clean x where they are -1."""
    unknown = labels < 0
    if not bool(unknown.any()):
        return labels
    with torch.no_grad():
        return torch.where(unknown, victim(x).argmax(1), labels)


def pixels(images: Tensor, victim: Victim) -> Tensor:
    """uint8 images as float in [0,1] on the victim's device."""
    return images.to(victim.device, non_blocking=True).float() / 255


def batches(images: ImageSet, settings: Settings, done: int, until: int, workers: int | None) -> Iterator[Batch]:
    """The batches of steps `done` to `until`: epochs in random order, end to end."""
    n = len(images)
    size = min(settings.batch, n)
    first, last = done * size, until * size
    drawn: list[int] = []
    for epoch in range(first // n, -(-last // n)):
        order = torch.randperm(n, generator=rng(settings.seed, "harden", "epoch", epoch)).tolist()
        drawn += order[max(0, first - epoch * n) : last - epoch * n]
    yield from images.batches(size, workers=workers, positions=drawn)


def split(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Images to train on, and the `share` held out: at least one of each, drawn by `seed`."""
    n = len(images)
    if n < 2:
        raise UsageError(f"{n} image in {images.root}; expected two or more, because a share is held out for measuring")
    held = min(n - 1, max(1, round(share * n)))
    order = torch.randperm(n, generator=rng(seed, "harden", "held out")).tolist()
    return images.subset(sorted(order[held:])), images.subset(sorted(order[:held]))
