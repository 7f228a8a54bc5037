"""cbgan, the flagship: a class-balancing GAN makes proxies, a generator learns patterns on them, one is refined."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ...distributed import world
from ...errors import UsageError
from ...gan.balance import coverage
from ...gan.gold import GoldPool
from ...gan.networks import GENERATOR_PLAN
from ...gan.proxy_gan import ProxyGanSettings, proxy_gan
from ...gan.victim_loss import TermWeights
from ...proxies import Mixture, Pool, Procedural, ProxySource
from ..core.method import above, at_least, one_of, register, within
from ..core.plan import CraftPlan
from ..core.run import Crafting
from ..core.steps import random_start
from .generator_stage import train_latents
from .objective import Objective
from .refinement import refine

GAN_POOL = 1024


def _check(plan: CraftPlan) -> None:
    p: dict[str, Any] = plan.params
    gold = p["proxy_filter"] == "gold"
    if gold and not p["gan"]:
        raise UsageError("proxy_filter=gold filters the GAN's samples, and gan=false leaves it out; drop one of them")
    if gold and not p["pool"]:
        raise UsageError("proxy_filter=gold fills a pool, and pool=0 wants none; drop one of them")
    trains = p["gan"] and (gold or plan.budget >= p["gan_from"])
    images = int(p["gan_share"] * plan.budget) // p["gan_batch"] if trains else 0
    if gold and not images:
        raise UsageError(f"budget {plan.budget} leaves the GAN no batch to filter samples of; give a larger one")
    if images and p["gan_batch"] % world():
        raise UsageError(
            f"gan_batch={p['gan_batch']} does not split over {world()} processes; give a multiple, or gan=false"
        )
    if p["gan_size"] not in GENERATOR_PLAN:
        raise UsageError(f"cbgan: gan_size={p['gan_size']} is no size of the GAN; expected {sorted(GENERATOR_PLAN)}")
    if p["start"] >= p["end"]:
        raise UsageError(f"cbgan: start={p['start']} is not below end={p['end']}; no layer lies between them")
    if p["refinement"] < p["batch"]:
        raise UsageError(f"cbgan: refinement={p['refinement']} is less than one batch of {p['batch']} images")
    layers = p["activation"] + p["displacement"] if plan.victim.layers() else 0
    if not layers + p["logits"] + p["features"] + p["agreement"]:
        raise UsageError("cbgan: all weights of the loss that this victim feels are 0; raise one")


@register("cbgan", paper="this project, after Rangwani et al., UAI 2021", year=2026, check=_check)
def cbgan(
    run: Crafting,
    *,
    gan: Annotated[bool, "a GAN among the sources of images"] = True,
    gan_from: Annotated[int, at_least(0), "budget from which the GAN is trained"] = 24_000,
    gan_share: Annotated[float, within(0, 1), "share of the budget that trains the GAN"] = 0.15,
    gan_every: Annotated[int, at_least(1, at_most=1000), "generator steps for each look of the victim"] = 4,
    gan_seed: Annotated[int, at_least(0), "seed of the GAN"] = 0,
    gan_size: Annotated[int, within(32, 128), "side of the GAN's images: 32, 64 or 128 pixels"] = 64,
    gan_width: Annotated[int, at_least(1, at_most=256), "channels of the GAN"] = 12,
    gan_latent: Annotated[int, at_least(1, at_most=4096), "numbers behind one of its images"] = 64,
    gan_batch: Annotated[int, at_least(2, at_most=4096), "images a step of the GAN"] = 16,
    gan_weight: Annotated[float, within(0, 1), "share of its images among the proxies"] = 0.2,
    proxy_filter: Annotated[str, one_of("none", "gold"), "keep the GAN's under-represented samples"] = "none",
    gold_keep: Annotated[float, within(0.01, 1), "share of the samples that the filter keeps"] = 0.5,
    effective: Annotated[bool, "weigh classes by their effective frequency"] = True,
    balance: Annotated[float, at_least(0, at_most=1000), "weight of class balance in the GAN"] = 10.0,
    confidence: Annotated[float, at_least(0, at_most=1000), "weight of the victim's confidence in the GAN"] = 4.0,
    statistics: Annotated[float, at_least(0, at_most=1000), "weight of batch-norm statistics in the GAN"] = 0.3,
    generator_share: Annotated[float, within(0, 1), "share of the budget for the perturbation generator"] = 0.05,
    generator_width: Annotated[int, at_least(1, at_most=256), "channels of the perturbation generator"] = 16,
    generator_lr: Annotated[float, above(0, at_most=1), "Adam's step of the perturbation generator"] = 2e-3,
    generator_crops: Annotated[float, within(0, 1), "share of crops of its own patterns in its batches"] = 0.0,
    diversity: Annotated[float, at_least(0, at_most=1000), "weight of patterns that move features apart"] = 0.5,
    candidates: Annotated[int, at_least(1, at_most=1000), "patterns of the generator that join the starts"] = 4,
    pool: Annotated[int, at_least(0, at_most=100_000), "images held of each source; 0 makes fresh ones"] = 384,
    batch: Annotated[int, at_least(1, at_most=10_000), "images a step"] = 8,
    crops: Annotated[float, within(0, 1), "share of crops of the pattern itself in a batch"] = 0.5,
    lr: Annotated[float, above(0, at_most=1), "Adam's first step in [0,1] pixel units"] = 0.15,
    lr_end: Annotated[float, above(0, at_most=1), "Adam's last step in [0,1] pixel units"] = 0.005,
    refinement: Annotated[int, at_least(1), "image-gradients of one refinement"] = 5000,
    shuffle: Annotated[bool, "blocks of the perturbed images change places"] = False,
    activation: Annotated[float, at_least(0, at_most=1000), "weight of the layers' energy"] = 0.5,
    displacement: Annotated[float, at_least(0, at_most=1000), "weight of how far the layers move"] = 0.5,
    logits: Annotated[float, at_least(0, at_most=1000), "weight of the cosine at the logits"] = 0.0,
    features: Annotated[float, at_least(0, at_most=1000), "weight of the cosine at the features"] = 0.0,
    features_by_turns: Annotated[
        float, at_least(0, at_most=1000), "added to features in every second refinement"
    ] = 3.0,
    agreement: Annotated[float, at_least(0, at_most=1000), "weight of logits that agree with their mean"] = 0.5,
    start: Annotated[float, within(0, 1, high_open=True), "first layer that counts, as a share of depth"] = 0.3,
    end: Annotated[float, within(0, 1, low_open=True), "last layer that counts, as a share of depth"] = 1.0,
) -> Tensor:
    """Class-balancing GAN with the victim in the loop, perturbation generator, refinement; sees no image.

    (a) A GAN whose discriminator sees procedural images (or --proxy) and whose generator also answers to the victim:
    `balance` weighs the class-balancing regulariser (`effective`=false keeps its class weights at 1), `confidence` and
    `statistics` the other terms; the victim looks at every `gan_every`-th step. It takes `gan_share` of the budget and
    is cached per victim; its samples are the share `gan_weight` of the proxies. Budgets below `gan_from` would pay for
    too short a training, and `gan`=false wants none: then refinement has its image-gradients. `proxy_filter`=gold draws
    more samples and keeps the share `gold_keep` that discriminator and victim find under-represented
    (gan/gold.py; forward passes, which are counted), at any budget.
    (b) A perturbation generator takes `generator_share`, with a `diversity` term, on the same proxies and on crops of
    its own patterns (share `generator_crops`); its latents give `candidates`, which join a random start.
    (c) Refinement is by Adam (`lr` falls to `lr_end`, in pixel units: beyond 2 eps it is bang-bang) on crops of the
    pattern itself (share `crops` of each batch), GAN samples and procedural images (a `pool` of each, or fresh ones
    where that is 0). The layers between the shares `start` and `end` of the depth are to have much `activation`
    log-energy, and to move far by `displacement`, the log-energy of their difference from the clean images'; the
    perturbed images' logits are to be in `agreement` with their mean; cosines at `logits` and `features` between
    perturbed and clean images are to be small. Each is a weight. `shuffle` cuts the perturbed images into 2 x 2 blocks
    that change places, anew at every step (as PSP-UAP does in a third of its steps), so that the pattern has to act
    wherever it lies. Every `refinement` image-gradients it starts anew from the start that is next best on held-out
    proxies, each second time with `features_by_turns` more weight on `features`; the end that is best there is kept.
    """
    victim = run.victim
    pool = min(pool, run.budget)  # no image of it that the budget could not take up
    gold = proxy_filter == "gold"
    gan = gan and (gold or run.budget >= gan_from)
    real = run.source or Procedural(victim.input_size[1:], victim.device)
    sources: list[tuple[ProxySource, float]] = [(_pooled(real, pool, run.seed), 1 - gan_weight)]
    gan_images = int(gan_share * run.budget) // gan_batch * gan_batch if gan else 0
    if gan_images:
        settings = ProxyGanSettings(
            images=gan_images * gan_every,
            victim_every=gan_every,
            size=gan_size,
            width=gan_width,
            latent_dim=gan_latent,
            batch=gan_batch,
            effective=effective,
            weights=TermWeights(balance, confidence, statistics),
        )
        sources.append((_gan_stage(run, settings, gan_seed, pool, gold_keep if gold else None), gan_weight))
    proxies = run.draw_from(Mixture(sources), made_of=[run.source])
    objective = Objective(activation, displacement, logits, features, agreement, start, end)
    starts = [random_start(victim.input_size, run.eps, run.rng("start"))]
    if images := int(generator_share * run.budget) // batch * batch:
        network = train_latents(
            run,
            proxies,
            objective,
            images=images,
            batch=batch,
            lr=generator_lr,
            diversity=diversity,
            width=generator_width,
            crops=generator_crops,
        )
        with torch.no_grad():
            starts += network(network.latents(candidates, run.rng("latents"))).split(1)
    objectives = (objective, replace(objective, features=features + features_by_turns))
    return refine(run, proxies, objectives, starts, batch, crops, (lr, lr_end), refinement, shuffle)


def _pooled(source: ProxySource, n: int, seed: int) -> ProxySource:
    return Pool(source, n, seed) if n else source


def _gan_stage(run: Crafting, settings: ProxyGanSettings, gan_seed: int, pool: int, keep: float | None) -> ProxySource:
    """A pool of the GAN's samples, filtered where `keep` is given."""
    real = Pool(run.source or Procedural(settings.size, run.victim.device), GAN_POOL, gan_seed)

    def callback(nimg: int, figures: dict[str, float]) -> None:
        done = nimg // settings.victim_every
        run.report("gan", done, {k: round(v, 4) for k, v in figures.items()}, uncounted=done)

    folder = run.folder.path / "gan" if run.folder else None
    made = proxy_gan(
        run.victim.counted(None),
        real,
        settings,
        seed=gan_seed,
        folder=folder,
        callback=callback,
        with_discriminator=keep is not None,
    )
    passes, looks = made.record["image_gradients"] // settings.batch, made.record["coverage"]["n"]
    run.account("gan", settings.batch, steps=settings.images // settings.batch, passes=passes, image_forwards=looks)
    run.notes["gan"] = {"coverage": made.record["coverage"], "statistics_off": made.record["statistics_off"]}
    if keep is None:
        return _pooled(made, pool, run.seed)
    # Now, and not at the first draw: a resumed stage sets the cost back to what it was, this included.
    kept = GoldPool(made, lambda images: run.look(run.victim, images), pool, run.seed, keep=keep)
    seen = {"drawn": coverage(kept.logits), "kept": coverage(kept.logits[kept.kept])}
    run.notes["gold"] = {part: {k: round(v, 4) for k, v in figures.items()} for part, figures in seen.items()}
    return kept
