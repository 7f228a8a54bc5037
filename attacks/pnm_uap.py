"""PNM-UAP: progressive maximisation of positive activations (public code of 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from ..errors import UnfitVictimError, UsageError
from ..victims import Victim
from .core.curricula import shown
from .core.layerwise import first, follow_curriculum, layer_names, layer_outputs
from .core.method import above, at_least, one_of, register, within
from .core.plan import CraftPlan
from .core.run import Crafting
from .trm_uap import truncated_ratio

SHARE_STEP = 0.05


def share_at(iteration: float, low: float, high: float, every: int) -> float:
    """The share of layers in use at a published iteration: `low`, 0.05 more after each `every`, at most `high`."""
    return min(high, low + SHARE_STEP * int(iteration / every))


def _check(plan: CraftPlan) -> None:
    low, high = plan.params["low"], plan.params["high"]
    if low > high:  # type: ignore[operator]
        raise UsageError(f"pnm-uap needs low <= high; got low={low}, high={high}")
    _names(plan.victim, str(plan.params["outputs"]))


@register("pnm-uap", paper="PNM-UAP, public code, 2024", year=2024, stops=True, check=_check)
def pnm_uap(
    run: Crafting,
    *,
    prior: Annotated[str, one_of("jigsaw", "gaussian"), "artificial images to craft on, without --proxy"] = "jigsaw",
    low: Annotated[float, within(0, 1, low_open=True), "share of the layers that is read at first"] = 0.1,
    high: Annotated[float, within(0, 1, low_open=True), "share of the layers that is read at last"] = 0.7,
    every: Annotated[int, at_least(1, at_most=1_000_000), "published iterations for 0.05 more of the layers"] = 100,
    outputs: Annotated[str, one_of("conv", "norm"), "read convolutions, or the batch norms behind them"] = "conv",
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.1,
    batch: Annotated[int, at_least(1, at_most=10_000), "images of the first steps; grows along the run"] = 1,
    normalise: Annotated[bool, "feed what is evaluated, not the raw input of the public code"] = False,
) -> Tensor:
    """TRM-UAP's positive term alone, on a share of the layers that grows with the run.

    The first `low` of the layers are read at first, 0.05 more every `every` iterations of a published run (4,000), up
    to `high`; the public settings are 50 to 200 and 0.6 to 0.8. `outputs` is conv, or norm to read the batch norms
    behind the convolutions, as the public code does for ResNet50 and the VGGs that have them.
    The other parameters, the curricula and --stop-on are those of trm-uap.
    """
    names = _names(run.victim, outputs)

    def loss_of(
        delta: Tensor, priors: Tensor, n: int, iteration: float, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        read = first(names, share_at(iteration, low, high, every))

        def loss(d: Tensor) -> Tensor:
            layers = layer_outputs(run.victim, shown(run.victim, priors + d, normalise), read)
            return truncated_ratio(layers, [], 0.0)

        return loss

    return follow_curriculum(run, "pnm", loss_of, prior=prior, normalise=normalise, lr=lr, batch=batch)


def _names(victim: Victim, outputs: str) -> list[str]:
    """The layers to read; raises UnfitVictimError where the victim has none of them."""
    if outputs == "conv":
        return layer_names(victim)
    names = [name for name, module in victim.module.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if not names:
        raise UnfitVictimError(f"{victim.name} has no batch norm; use outputs=conv")
    return names
