"""FFF: fast feature fool (Mopuri et al., BMVC 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from ..errors import UsageError
from .core.curricula import shown
from .core.layerwise import Loss, background, layer_names, layer_outputs, need_layers, raise_layers, stop_like_gd_uap
from .core.method import above, register
from .core.plan import CraftPlan
from .core.run import Crafting


def product_of_means(layers: Sequence[Tensor], rectify: bool) -> Tensor:
    """-log prod_l mean(a_l), a_l behind a ReLU where `rectify`, else by its absolute value."""
    means = [(a.float().clamp_min(0) if rectify else a.float().abs()).mean() for a in layers]
    return -torch.stack([(mean + 1e-9).log() for mean in means]).sum()


def _check(plan: CraftPlan) -> None:
    if plan.source is not None:
        raise UsageError("fff looks at delta alone and reads no image; gd-uap with prior=data does")
    need_layers(plan)


@register("fff", paper="Mopuri et al., BMVC 2017", year=2017, stops=True, shares=False, check=_check)
def fff(
    run: Crafting,
    *,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.1 / 255,
    rectify: Annotated[bool, "read the positive part of a layer, not its magnitude"] = True,
    normalise: Annotated[bool, "feed what is evaluated, not the raw input of the public code"] = True,
) -> Tensor:
    """Raises the product of all layers' mean activations for delta alone: no image, one image-gradient a step.

    `rectify` takes the positive part of each layer's output, as the paper's activations are read behind ReLUs; false
    takes the magnitude. `lr` is Adam's in [0,1] pixel units; the published 0.1 counts in levels of 255. delta is halved
    when it rests at the bound, but for the last tenth of the budget. `normalise`=false hands delta to the network as
    it is. With --stop-on it ends after ten looks in a row without an improvement.
    """
    names = layer_names(run.victim)
    still = background(run.victim, normalise)

    def loss(d: Tensor) -> Tensor:
        return product_of_means(layer_outputs(run.victim, shown(run.victim, still + d, normalise), names), rectify)

    def prepare(delta: Tensor, generator: torch.Generator) -> Loss:
        return loss

    return raise_layers(run, "fff", prepare, lr=lr, stopping=stop_like_gd_uap(run, 1))
