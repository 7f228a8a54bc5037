"""What methods that learn from images share: labels without labels, and batches that the budget can pay for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .losses import classification
from .optimise import Gradient, gradient_of
from .run import Crafting


def labels_of(run: Crafting, images: Tensor) -> Tensor:
    """(B,) classes: `run.target` where the run has one, else the victim's own prediction for each image (B,3,H,W).

    The papers take true labels; sources give none, and the fooling rate asks for the victim's own prediction anyway.
    """
    if run.target is not None:
        return torch.full((len(images),), run.target, device=images.device)
    return predict(run, images)


def predict(run: Crafting, images: Tensor) -> Tensor:
    """The victim's classes (B,) for images (B,3,H,W) in [0,1]; forward only."""
    return run.look(run.victim, images).argmax(1)


def affordable(batch: int, budget: int, min_steps: int) -> int:
    """`batch`, or what lets `budget` image-gradients pay for `min_steps` batches; 1 at least."""
    return max(1, min(batch, budget // min_steps))


def label_loss(name: str, target: int | None, clamp: float) -> Callable[[Tensor, Tensor], Tensor]:
    """`loss(logits (B,K), labels (B,))` to minimise: `ce`, minus the cross-entropy to the labels cut at `clamp`; or
    `logit`, the mean logit of the labels. With a target, whose labels they then are, the sign is the other one.
    """

    def value(logits: Tensor, labels: Tensor) -> Tensor:
        if name == "ce":
            return classification(logits, labels, target, clamp)
        mean = logits.gather(1, labels[:, None]).mean()
        return mean if target is None else -mean

    return value


def label_gradient(
    run: Crafting, batch: int, loss: Callable[[Tensor, Tensor], Tensor], *, clip: bool = True
) -> Gradient:
    """The gradient of `loss(logits (B,K), labels (B,))` on `batch` fresh images; `clip` cuts x + delta to [0,1]."""
    assert run.source is not None
    source = run.source

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        images = source.batch(batch, generator)
        labels = labels_of(run, images)

        def value(d: Tensor) -> Tensor:
            x = images + d
            return loss(run.victim(x.clamp(0, 1) if clip else x), labels)

        towards, figure = gradient_of(run, value, delta)
        return towards, {"loss": figure}

    return gradient
