"""cbgan, the flagship: a class-balancing GAN makes proxies, a generator learns patterns on them, one is refined."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...distributed import world
from ...errors import UsageError
from ...gan.balance import coverage
from ...gan.gold import GoldPool, check_share
from ...gan.proxy_gan import ProxyGanSettings, proxy_gan
from ...gan.victim_loss import TermWeights
from ...proxies import Mixture, Pool, Procedural, ProxySource
from ..core.method import register
from ..core.run import Crafting
from ..core.steps import random_start
from .generator_stage import train_latents
from .objective import Objective
from .refinement import refine

GAN_POOL = 1024


@register("cbgan", paper="this project, after Rangwani et al., UAI 2021", year=2026)
def cbgan(
    run: Crafting,
    *,
    gan: bool = True,
    gan_from: int = 24_000,
    gan_share: float = 0.15,
    gan_every: int = 4,
    gan_seed: int = 0,
    gan_size: int = 64,
    gan_width: int = 12,
    gan_latent: int = 64,
    gan_batch: int = 16,
    gan_weight: float = 0.2,
    proxy_filter: str = "none",
    gold_keep: float = 0.5,
    effective: bool = True,
    balance: float = 10.0,
    confidence: float = 4.0,
    statistics: float = 0.3,
    generator_share: float = 0.05,
    generator_width: int = 16,
    generator_lr: float = 2e-3,
    generator_crops: float = 0.0,
    diversity: float = 0.5,
    candidates: int = 4,
    pool: int = 384,
    batch: int = 8,
    crops: float = 0.5,
    lr: float = 0.15,
    lr_end: float = 0.005,
    refinement: int = 5000,
    shuffle: bool = False,
    activation: float = 0.5,
    displacement: float = 0.5,
    logits: float = 0.0,
    features: float = 0.0,
    features_by_turns: float = 3.0,
    agreement: float = 0.5,
    start: float = 0.3,
    end: float = 1.0,
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
    gold = _wants_gold(proxy_filter, gold_keep, gan, pool)
    gan = gan and (gold or run.budget >= gan_from)
    real = run.source or Procedural(victim.input_size[1:], victim.device)
    sources: list[tuple[ProxySource, float]] = [(_pooled(real, pool, run.seed), 1 - gan_weight)]
    gan_images = int(gan_share * run.budget) // gan_batch * gan_batch if gan else 0
    if gan_images and gan_batch % world():
        raise UsageError(
            f"gan_batch={gan_batch} does not split over {world()} processes; give a multiple, or gan=false"
        )
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
    elif gold:
        raise UsageError(f"budget {run.budget} leaves the GAN no batch to filter samples of; give a larger one")
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


def _wants_gold(proxy_filter: str, keep: float, gan: bool, pool: int) -> bool:
    if proxy_filter not in ("none", "gold"):
        raise UsageError(f"proxy_filter={proxy_filter!r} is unknown; expected none or gold")
    if proxy_filter == "gold" and not gan:
        raise UsageError("proxy_filter=gold filters the GAN's samples, and gan=false leaves it out; drop one of them")
    if proxy_filter == "gold" and not pool:
        raise UsageError("proxy_filter=gold fills a pool, and pool=0 wants none; drop one of them")
    check_share(keep)
    return proxy_filter == "gold"


def _pooled(source: ProxySource, n: int, seed: int) -> ProxySource:
    return Pool(source, n, seed) if n else source


def _gan_stage(run: Crafting, settings: ProxyGanSettings, gan_seed: int, pool: int, keep: float | None) -> ProxySource:
    """A pool of the GAN's samples, filtered where `keep` is given."""
    real = Pool(run.source or Procedural(settings.size, run.victim.device), GAN_POOL, gan_seed)

    def callback(nimg: int, figures: dict[str, float]) -> None:
        total = settings.images // settings.victim_every
        run.report("gan", nimg // settings.victim_every, total, {k: round(v, 4) for k, v in figures.items()})

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
