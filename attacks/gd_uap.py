"""GD-UAP: the generalisable data-free objective (Mopuri et al., TPAMI 2018)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from ..errors import UsageError
from ..proxies import ProxySource
from .core.curricula import RangePrior, shown
from .core.layerwise import Loss, background, layer_names, layer_outputs, need_layers, raise_layers, stop_like_gd_uap
from .core.losses import activation_energy
from .core.method import above, at_least, one_of, register
from .core.plan import CraftPlan
from .core.run import Crafting


def _check(plan: CraftPlan) -> None:
    need_layers(plan)
    if plan.params["prior"] == "data" and plan.source is None:
        raise UsageError("gd-uap with prior=data reads images: give --proxy or --train-data")
    if plan.params["prior"] == "range" and plan.source is not None:
        raise UsageError("gd-uap with prior=range makes its own noise: use prior=data for the images given")


@register("gd-uap", paper="Mopuri et al., TPAMI 2018", year=2018, stops=True, check=_check)
def gd_uap(
    run: Crafting,
    *,
    prior: Annotated[str, one_of("none", "range", "data"), "delta alone, Gaussian noise, or the images given"] = "none",
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.1 / 255,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step, with a prior; shrinks with the budget"] = 25,
    rectify: Annotated[bool, "read the positive part of a layer only"] = False,
    normalise: Annotated[bool, "feed what is evaluated, not the raw input of the public code"] = True,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 100,
) -> Tensor:
    """Raises the energy of every layer, -sum_l log(1/2 ||a_l||^2), for delta alone, on noise, or on images.

    `prior` is none (delta alone, one image-gradient a step), range (Gaussian noise that fills the range of pixels,
    scaled, flipped, rotated and blurred at random) or data (the images of --proxy or --train-data, which are also used
    where `prior` is left at none). With a prior a step takes `batch` images, fewer where the budget would not allow
    `min_steps` steps.

    `lr` is Adam's in [0,1] pixel units; the paper's 0.1 counts in levels of 255. The later PyTorch line, whose patterns
    for torchvision networks are public, kept 0.1 for [0,1] pixels, where it is beyond 2 eps and every step is
    bang-bang, and feeds delta without mean and standard deviation: `lr`=0.1 `normalise`=false gives that.
    `rectify` reads the positive part of a layer's output, as networks with in-place ReLUs show it.

    delta is halved when it rests at the bound, but for the last tenth of the budget. With --stop-on the run ends after
    ten looks in a row without an improvement.
    """
    names = layer_names(run.victim)
    source = _source(run, prior)
    batch = max(1, min(batch, run.budget // min_steps)) if source else 1
    still = background(run.victim, normalise)
    shift = 0.0 if normalise or prior != "range" else 0.5

    def prepare(delta: Tensor, generator: torch.Generator) -> Loss:
        images = source.batch(batch, generator) - shift if source else still

        def loss(d: Tensor) -> Tensor:
            layers = layer_outputs(run.victim, shown(run.victim, images + d, normalise), names)
            return activation_energy([a.clamp_min(0) for a in layers] if rectify else layers)

        return loss

    return raise_layers(run, "gd", prepare, lr=lr, stopping=stop_like_gd_uap(run, batch))


def _source(run: Crafting, prior: str) -> ProxySource | None:
    return run.draw_from(RangePrior(run)) if prior == "range" else run.source
