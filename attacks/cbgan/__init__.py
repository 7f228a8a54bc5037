"""cbgan, the flagship: a class-balancing GAN makes proxies, a generator learns patterns on them, one is refined."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from ...errors import UsageError
from ..core.method import at_least, register
from ..core.plan import CraftPlan
from ..core.run import Crafting
from ..core.steps import random_start
from .gan_stage import GanStage, make_proxies
from .generator_stage import GeneratorStage, generate_candidates
from .objective import Objective
from .refinement import Refinement, refine


def _check(plan: CraftPlan) -> None:
    settings = plan.method.arguments(plan.params)
    gan, generator, batch = settings["gan"], settings["generator"], settings["batch"]
    gan.check(plan.budget, settings["pool"])
    settings["objective"].check(plan.victim)
    if settings["refinement"].refinement < batch:
        given = settings["refinement"].refinement
        raise UsageError(f"cbgan: refinement={given} is less than one batch of {batch} images")
    taken = generator.generator_share + (gan.gan_share if gan.images(plan.budget) else 0)
    if taken >= 1:
        raise UsageError(f"cbgan: gan_share and generator_share take {taken:g} of the budget; leave refinement a part")


@register("cbgan", paper="this project, after Rangwani et al., UAI 2021", year=2026, check=_check)
def cbgan(
    run: Crafting,
    *,
    gan: GanStage = GanStage(),  # noqa: B008 (frozen)
    generator: GeneratorStage = GeneratorStage(),  # noqa: B008 (frozen)
    pool: Annotated[int, at_least(0, at_most=100_000), "images held of each proxy source; 0 makes fresh ones"] = 384,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step of the generator and of refinement"] = 8,
    refinement: Refinement = Refinement(),  # noqa: B008 (frozen)
    objective: Objective = Objective(),  # noqa: B008 (frozen)
) -> Tensor:
    """Class-balancing GAN with the victim in the loop, perturbation generator, refinement; sees no image.

    (a) A GAN makes proxies. Its discriminator sees procedural images (or --proxy); its generator also answers to the
    victim, which looks at every `gan_every`-th step. Small budgets pay for too short a training and leave it out.
    `proxy_filter`=gold draws more samples and keeps those that discriminator and victim find under-represented
    (gan/gold.py); this takes forward passes, which are counted, and wants the GAN at any budget.
    (b) A perturbation generator learns on the same proxies; patterns of its latents join a random start.
    (c) Refinement, by Adam with a falling step, on crops of the pattern itself, GAN samples and procedural images. It
    starts anew, every `refinement` image-gradients, from the start that is next best on held-out proxies, each second
    time with more weight on the features. The end that is best on held-out proxies is kept.

    (b) and (c) share an objective. Layers between `start` and `end` of the depth are to have much energy
    (`activation`) and to move far from what they say of clean images (`displacement`). Perturbed images' logits are to
    agree with their mean (`agreement`). Cosines at `logits` and `features` between perturbed and clean images are to
    be small. Each is a weight. `shuffle` makes the pattern act wherever it lies, as PSP-UAP does in a third of its
    steps.
    """
    pool = min(pool, run.budget)  # no image of it that the budget could not take up
    proxies = run.draw_from(make_proxies(run, gan, pool), made_of=[run.source])
    starts = [random_start(run.victim.input_size, run.eps, run.rng("start"))]
    starts += generate_candidates(run, proxies, objective, generator, batch)
    return refine(run, proxies, objective, starts, refinement, batch)
