"""PNM-UAP: progressive maximisation of positive activations (public code of 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .core.curricula import shown
from .core.layerwise import first, follow_curriculum, layer_names, layer_outputs
from .core.method import register
from .core.run import Crafting
from .trm_uap import truncated_ratio

SHARE_STEP = 0.05


def share_at(iteration: float, low: float, high: float, every: int) -> float:
    """The share of layers in use at a published iteration: `low`, 0.05 more after each `every`, at most `high`."""
    return min(high, low + SHARE_STEP * int(iteration / every))


@register("pnm-uap", paper="PNM-UAP, public code, 2024", year=2024, stops=True)
def pnm_uap(
    run: Crafting,
    *,
    prior: str = "jigsaw",
    low: float = 0.1,
    high: float = 0.7,
    every: int = 100,
    outputs: str = "conv",
    lr: float = 0.1,
    batch: int = 1,
    normalise: bool = False,
) -> Tensor:
    """TRM-UAP's positive term alone, on a share of the layers that grows with the run.

    The first `low` of the layers are read at first, 0.05 more every `every` iterations of a published run (4,000), up
    to `high`; the public settings are 50 to 200 and 0.6 to 0.8. `outputs` is conv, or norm to read the batch norms
    behind the convolutions, as the public code does for ResNet50 and the VGGs that have them.
    The other parameters, the curricula and --stop-on are those of trm-uap.
    """
    if every < 1 or low > high:
        raise UsageError(f"pnm-uap needs every >= 1 and low <= high; got every={every}, low={low}, high={high}")
    names = _names(run, outputs)

    def loss_of(
        delta: Tensor, priors: Tensor, n: int, iteration: float, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        read = first(names, share_at(iteration, low, high, every))

        def loss(d: Tensor) -> Tensor:
            layers = layer_outputs(run.victim, shown(run.victim, priors + d, normalise), read)
            return truncated_ratio(layers, [], 0.0)

        return loss

    return follow_curriculum(run, "pnm", loss_of, prior=prior, normalise=normalise, lr=lr, batch=batch)


def _names(run: Crafting, outputs: str) -> list[str]:
    if outputs == "conv":
        return layer_names(run.victim)
    if outputs != "norm":
        raise UsageError(f"outputs={outputs!r} is unknown; expected conv or norm")
    names = [name for name, module in run.victim.module.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if not names:
        raise UsageError(f"{run.victim.name} has no batch norm; use outputs=conv")
    return names
