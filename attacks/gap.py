"""GAP: generative adversarial perturbations, their universal form (Poursaeed et al., CVPR 2018)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .core.generators import ResnetGenerator, Training, offer, shrunk, step, strength
from .core.method import above, at_least, register
from .core.optimise import repeat
from .core.run import Crafting


@register("gap", paper="Poursaeed et al., CVPR 2018", year=2018, images="driven", targeted=True)
def gap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(4, at_most=10_000), "images a step; shrinks where the budget is small"] = 30,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 300,
    lr: Annotated[float, above(0, at_most=1), "Adam's step of the generator"] = 2e-4,
    width: Annotated[int, at_least(1, at_most=256), "channels of the generator; published 64"] = 16,
    blocks: Annotated[int, at_least(0, at_most=64), "residual blocks of the generator"] = 6,
    least_likely: Annotated[bool, "lead to the least likely class, not just away from the own"] = True,
    rescale: Annotated[bool, "scale each channel down to eps, as published; else eps tanh"] = True,
) -> Tensor:
    """A ResNet generator turns one fixed noise image into one pattern; what is learnt are the network's weights.

    Loss: log of the cross-entropy to each image's least likely class, or with `least_likely`=false minus the log of
    the cross-entropy of its own; with a target the log of the cross-entropy to that. Adam with beta1 0.5. `rescale`:
    each channel is scaled down until its largest entry meets eps (`rescaled`), as published; false: eps tanh(...).

    The paper takes 500 steps of 30 images; the batch shrinks until the budget allows `min_steps`. Its `width` of 64
    makes a step of the network several times dearer than the victim's on a CPU: 16 is the default. Images are clipped
    to [0,1]; the public code clips to the range of the batch.
    """
    assert run.source is not None
    victim, source = run.victim, run.source
    batch = shrunk(batch, run.budget, min_steps)
    network = ResnetGenerator(width=width, blocks=blocks, seed=run.seed).to(victim.device)
    optimizer = torch.optim.Adam(network.parameters(), lr, betas=(0.5, 0.999))
    noise = (torch.rand(1, *victim.input_size, generator=run.rng("noise")).to(victim.device) - victim.mean) / victim.std

    def pattern() -> Tensor:
        out = network(noise)
        return run.tied(rescaled((out + 1) / 2 - victim.mean, run.eps) if rescale else run.eps * out)

    def advance(generator: torch.Generator) -> dict[str, Any]:
        x = source.batch(batch, generator)
        clean = run.look(victim, x)
        delta = pattern()
        loss = gap_loss(victim((x + delta).clamp(0, 1)), clean, least_likely, run.target)
        step(run, optimizer, loss)
        offer(run, pattern)
        return {"loss": round(loss.item(), 5), "strength": strength(delta, run.eps)}

    repeat(run, "generator", Training(network, optimizer), advance, run.budget)
    with torch.no_grad():
        return pattern()


def rescaled(raw: Tensor, eps: float) -> Tensor:
    """`raw` (B,C,H,W), each channel times min(1, eps / its largest absolute entry)."""
    largest = raw.abs().amax((2, 3), keepdim=True).clamp_min(1e-30)
    return raw * (eps / largest).clamp_max(1)


def gap_loss(logits: Tensor, clean: Tensor, least_likely: bool = True, target: int | None = None) -> Tensor:
    """Of logits (B,K) on perturbed images and `clean` ones (B,K); to be minimised."""
    if target is not None or least_likely:
        goal = clean.argmin(1) if target is None else torch.full((len(clean),), target, device=clean.device)
        return F.cross_entropy(logits, goal).log()
    return -F.cross_entropy(logits, clean.argmax(1)).log()
