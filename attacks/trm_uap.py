"""TRM-UAP: truncated ratio maximisation (Liu et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from ..distributed.rows import total
from .core.curricula import shown
from .core.layerwise import first, follow_curriculum, layer_names, layer_outputs, need_layers
from .core.method import above, at_least, one_of, register, within
from .core.run import Crafting


def truncated_ratio(positive: Sequence[Tensor], negative: Sequence[Tensor], weight: float) -> Tensor:
    """`weight` sum_l log(1/2 ||min(a_l, 0)||) - sum_l log(1/2 ||max(a_l, 0)||^2), norms over the batch.

    `positive` and `negative` are the activations (B,...) that each term reads. The norm of the negative part is not
    squared, as in the public code. Under torchrun the activations are those of this process's rows.
    """
    up = [0.5 * energy for energy in total([a.float().clamp_min(0).square().sum() for a in positive])]
    raised = torch.stack([(energy + 1e-9).log() for energy in up]).sum()
    if not negative:
        return -raised
    energies = total([a.float().clamp_max(0).square().sum() for a in negative])
    down = [0.5 * (energy + 1e-12).sqrt() for energy in energies]
    return weight * torch.stack([(energy + 1e-9).log() for energy in down]).sum() - raised


@register("trm-uap", paper="Liu et al., ICCV 2023", year=2023, stops=True, check=need_layers)
def trm_uap(
    run: Crafting,
    *,
    prior: Annotated[str, one_of("jigsaw", "gaussian"), "artificial images to craft on, without --proxy"] = "jigsaw",
    positive: Annotated[float, within(0, 1, low_open=True), "share of the layers whose positive part is raised"] = 0.3,
    negative: Annotated[float, within(0, 1), "share of the layers whose negative part is lowered"] = 0.2,
    weight: Annotated[float, at_least(0, at_most=1000), "factor of the negative term"] = 1.5,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.1,
    batch: Annotated[int, at_least(1, at_most=10_000), "images of the first steps; grows along the run"] = 1,
    normalise: Annotated[bool, "feed what is evaluated, not the raw input of the public code"] = False,
) -> Tensor:
    """Raises the positive and lowers the negative activations of the early layers, on artificial images.

    `positive` and `negative` are the shares of the layers, from the first on, that each term reads, `weight` the factor
    of the negative term. Published settings (prior, positive, negative, weight): ResNet152 jigsaw .3 .2 1.5, the
    default here because most victims are residual or have batch norm; GoogLeNet jigsaw .65 .2 1; AlexNet gaussian 1 .2
    1; VGG16 gaussian .8 .7 1; VGG19 gaussian .8 .8 .5. The public VGG and AlexNet runs read activations behind in-place
    ReLUs, where the negative term is a constant: `negative`=0 gives that.

    `lr` is Adam's, 0.1 in [0,1] pixel units as published: beyond 2 eps, so each step is bang-bang. delta is halved when
    it rests at the bound, but for the last tenth of the budget. `normalise`=false feeds the network priors + delta
    without mean and standard deviation and without clipping, as published; true feeds the images on which the pattern
    is evaluated. --proxy gives images instead of `prior`.

    The priors grow richer and the batch grows from `batch` (twofold at iterations 1600 and 3200, for gaussian also at
    2400) over the 4,000 iterations that a published run takes; smaller budgets walk the same course in fewer steps.
    With --stop-on it ends after five looks without an improvement; the paper stops on ImageNet validation images.
    """
    names = layer_names(run.victim)
    up, down = first(names, positive), first(names, negative) if negative else []
    read = max(up, down, key=len)

    def loss_of(
        delta: Tensor, priors: Tensor, n: int, iteration: float, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        def loss(d: Tensor) -> Tensor:
            layers = layer_outputs(run.victim, shown(run.victim, priors + d, normalise), read)
            return truncated_ratio(layers[: len(up)], layers[: len(down)], weight)

        return loss

    return follow_curriculum(run, "trm", loss_of, prior=prior, normalise=normalise, lr=lr, batch=batch)
