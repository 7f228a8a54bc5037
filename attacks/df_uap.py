"""DF-UAP: dominant features, by a bounded logit loss (Zhang et al., CVPR 2020)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .core.losses import label_gradient
from .core.method import above, at_least, register
from .core.optimise import optimise
from .core.run import Crafting
from .core.steps import AdamStep


@register("df-uap", paper="Zhang et al., CVPR 2020", year=2020, images="driven", norms=("linf", "l2"), targeted=True)
def df_uap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step"] = 32,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.005,
    kappa: Annotated[float, at_least(0, at_most=1e6), "lead in logits beyond which an image stops pulling"] = 10.0,
    clip: Annotated[bool, "cut x + delta to [0,1] while crafting"] = False,
) -> Tensor:
    """Adam from zero on the clean class's lead in logits, or the target's lag; beyond `kappa` an image stops pulling.

    Labels are the victim's own clean predictions. `lr` in [0,1] pixel units. The paper leaves x + delta unclipped
    while crafting (`clip`), and runs 2,000 steps of `batch` images.
    """
    gradient = label_gradient(
        run, batch, lambda logits, labels: bounded_lead(logits, labels, kappa, run.target is not None), clip=clip
    )
    start = torch.zeros(1, *run.victim.input_size)
    step = AdamStep(lr, run.norm, betas=(0.9, 0.999))
    return optimise(run, "df", gradient, delta=start, step=step, images=run.budget)


def bounded_lead(logits: Tensor, labels: Tensor, kappa: float, targeted: bool) -> Tensor:
    """Mean over logits (B,K) of max(z_y - max_{i != y} z_i, -kappa), or of max(max_{i != y} z_i - z_y, -kappa).

    The targeted form detaches the runner-up: the target is raised, the others are not pushed down.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    lead = other.detach() - own if targeted else own - other
    return lead.clamp_min(-kappa).mean()
