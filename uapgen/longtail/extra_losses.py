"""What a recipe adds to the generator's loss: class balancing, group spectral regularisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..gan import ClassBalance, GeneratorNetwork, GroupSpectral
from ..gan.steps import ExtraLoss
from ..victims import Victim
from .data import LabelledImages
from .gan_recipe import GanRecipe


def check_classifier(data: LabelledImages, recipe: GanRecipe, classifier: Victim | None) -> None:
    """Raises UsageError when class balancing lacks a classifier, or has one of other classes than the data."""
    if not recipe.balance:
        return
    if classifier is None:
        raise UsageError(
            "class balancing needs a classifier in the loop; train one with 'uapgen gan classifier' and give it"
        )
    if classifier.num_classes != data.num_classes:
        raise UsageError(
            f"{classifier.name} has {classifier.num_classes} classes, {data.name} {data.num_classes}; "
            "expected equal numbers"
        )


def extra_losses(
    data: LabelledImages, recipe: GanRecipe, classifier: Victim | None, generator: GeneratorNetwork, seed: int
) -> dict[str, Any]:
    """The extra losses by name; each is also a part of the run's state."""
    parts: dict[str, Any] = {}
    if recipe.balance and classifier:
        parts["balance"] = ClassBalance(
            classifier,
            recipe.balance,
            effective=recipe.effective,
            window=recipe.window,
            alpha=recipe.alpha,
            first_window=recipe.first_window,
        )
    if recipe.gsr:
        beta = 0.99 if recipe.network == "biggan" else 0.999  # as published
        parts["gsr"] = GroupSpectral(generator, data.counts(), weight=recipe.gsr, beta=beta, seed=seed)
    return parts


def sum_of(losses: Mapping[str, ExtraLoss]) -> ExtraLoss | None:
    """One extra loss that is the sum of all, with the figures of each; None without any."""
    if not losses:
        return None

    def total(fake: Tensor, nimg: int) -> tuple[Tensor, dict[str, Any]]:
        found = [loss(fake, nimg) for loss in losses.values()]
        figures = {name: value for _, numbers in found for name, value in numbers.items()}
        return torch.stack([value for value, _ in found]).sum(), figures

    return total
