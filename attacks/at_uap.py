"""AT-UAP: universal perturbations learnt on adversarial examples (Li et al., AAAI 2022)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proxies import GaussianPrior, JigsawPrior, Mixture
from .core.generators import shrunk
from .core.losses import classification, cosine
from .core.method import above, at_least, register, within
from .core.optimise import gradient_of, optimise
from .core.run import Crafting
from .core.steps import AdamStep, random_start


@register("at-uap", paper="Li et al., AAAI 2022", year=2022, norms=("linf", "l2"), targeted=True)
def at_uap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(4, at_most=10_000), "images a step; shrinks where the budget is small"] = 32,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 150,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.02,
    inner_steps: Annotated[int, at_least(0, at_most=1000), "steps of each image against delta"] = 1,
    radius: Annotated[float, at_least(0, at_most=1000), "how far the inner steps move an image, in eps"] = 0.1,
    consistency: Annotated[float, at_least(0, at_most=1000), "weight of outputs that agree"] = 0.5,
    features: Annotated[bool, "compare penultimate features, not logits"] = False,
    jigsaw: Annotated[float, within(0, 1), "share of jigsaws among the images, without --proxy"] = 0.5,
) -> Tensor:
    """Each image first takes `inner_steps` steps of its own against delta, and delta learns on these harder images.

    The inner steps lead x, within `radius` eps, to x' where f(x' + delta) is most like f(x); the outer one makes
    f(x' + delta) unlike f(x'). An image costs 1 + inner_steps image-gradients a step.
    `consistency` adds the paper's regulariser: outputs on the images of a batch shall agree. Without images the samples
    are jigsaws (share `jigsaw`) and Gaussian noise, the paper's unsupervised form; --proxy or --train-data give others.

    The paper is remembered here, not read. Our choices: likeness is the cosine of the logits (`features`: of the
    penultimate features); the consistency term is 1 - ||mean of the unit outputs||^2; x' comes by steepest steps of
    radius / inner_steps; Adam at `lr`, in pixel units; in a targeted run unlikeness is the cross-entropy to the target.
    The outer step compares with f(x'), not f(x): while delta is weak, the inner step carries images beyond where they
    were, and delta would learn to carry them further. The batch shrinks until the budget allows `min_steps` steps.
    """
    victim = run.victim
    size = (victim.input_size[1], victim.input_size[2])
    priors = Mixture([(JigsawPrior(size, victim.device), jigsaw), (GaussianPrior(size, victim.device), 1 - jigsaw)])
    source = run.draw_from(run.source or priors)
    batch = shrunk(batch, run.budget, min_steps * (1 + inner_steps))

    def view(x: Tensor) -> Tensor:
        return victim.features(x) if features and run.target is None else victim(x)

    def similarity(output: Tensor, clean: Tensor) -> Tensor:
        if run.target is not None:
            return classification(output, clean.argmax(1), run.target)
        return cosine(clean, output)

    def harden(x: Tensor, clean: Tensor, delta: Tensor) -> Tensor:
        r = torch.zeros_like(x)
        for _ in range(inner_steps):
            variable = r.requires_grad_(True)
            (up,) = torch.autograd.grad(similarity(view((x + variable + delta).clamp(0, 1)), clean), variable)
            (up,) = victim.summed([up])
            # Within `inner_steps` steps of radius / inner_steps r cannot leave its ball.
            r = (r + radius * run.eps / inner_steps * steepest_each(up, run.norm)).detach()
        return (x + r).clamp(0, 1)

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        x = source.batch(batch, generator)
        clean = run.look(view, x)
        hard, seen = x, clean
        if inner_steps:
            hard = harden(x, clean, delta)
            seen = run.look(view, hard)

        def loss(d: Tensor) -> Tensor:
            output = view((hard + d).clamp(0, 1))
            return similarity(output, seen) + consistency * disagreement(output)

        towards, value = gradient_of(run, loss, delta)
        return towards, {"loss": value}

    # Not zero: the cosine is at its maximum there, and its gradient vanishes.
    start = random_start(victim.input_size, run.eps, run.rng("start"), run.norm)
    return optimise(run, "at-uap", gradient, delta=start, step=AdamStep(lr, run.norm), images=run.budget)


def disagreement(outputs: Tensor) -> Tensor:
    """1 - ||mean of the rows' unit vectors||^2 of outputs (B,K): 0 where all point the same way, up to 1."""
    return 1 - F.normalize(outputs).mean(0).square().sum()


def steepest_each(gradient: Tensor, norm: str) -> Tensor:
    """`steepest` for each image of (B,C,H,W): signs in L-inf, unit vectors in L2."""
    return gradient.sign() if norm == "linf" else F.normalize(gradient.flatten(1)).view_as(gradient)
