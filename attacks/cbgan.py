"""cbgan, the flagship: a class-balancing GAN makes proxy images, a generator learns patterns on them, the best are
refined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..gan.proxy import GanSource, ProxyGanSettings, proxy_gan
from ..gan.terms import TermWeights
from ..proxies import DeadLeaves, DeltaCrops, GaussianPrior, Mixture, Procedural, ProxySource
from .latents import train_latents
from .loop import Crafting, gradient_of, optimise
from .objective import Objective
from .registry import register
from .selection import HeldOut
from .steps import AdamStep, random_start

HELD_OUT_IMAGES = 96
SEGMENTS = 8


@register("cbgan", paper="this project, after Rangwani et al., UAI 2021", year=2026, norms=("linf",))
def cbgan(
    run: Crafting,
    *,
    gan: bool = True,
    gan_share: float = 0.15,
    gan_every: int = 4,
    gan_seed: int = 0,
    gan_size: int = 64,
    gan_width: int = 12,
    gan_latent: int = 64,
    gan_batch: int = 16,
    effective: bool = True,
    balance: float = 5.0,
    confidence: float = 0.5,
    statistics: float = 1.0,
    generator_share: float = 0.1,
    generator_width: int = 16,
    generator_lr: float = 2e-3,
    diversity: float = 0.2,
    candidates: int = 4,
    batch: int = 16,
    crops: float = 0.6,
    lr: float = 0.1,
    depth: float = 0.9,
    activation: float = 1.0,
    logits: float = 0.0,
    features: float = 0.0,
) -> Tensor:
    """Data-free: trains a class-balancing GAN with the victim in the loop, learns a perturbation generator, refines the best.

    (a) A GAN whose discriminator sees procedural images (or --proxy) and whose generator also answers to the victim: `balance` (the
    class-balancing regulariser; `effective`=false keeps its class weights at 1), `confidence`, `statistics`. It takes `gan_share` of the
    image-gradients and is cached per victim; `gan`=false leaves it out and gives its share to refinement.
    (b) A perturbation generator takes `generator_share`, with a `diversity` term; its latents give `candidates`.
    (c) Direct refinement of the candidates by Adam (`lr` in pixel units: beyond 2 eps it is bang-bang), on crops of the current pattern
    (share `crops` of each batch), GAN samples and procedural images, minimising `activation` energy over `depth` of the layers plus
    cosines at `logits` and `features`. (d) The candidate that fools most held-out proxies, of a kind that no stage trained on.
    """
    victim, size = run.victim, (run.victim.input_size[1], run.victim.input_size[2])
    drawn = run.source or Procedural(size, victim.device)
    sources: list[ProxySource] = [drawn]
    gan_images = int(gan_share * run.budget) if gan else 0
    if gan_images >= gan_batch:
        settings = ProxyGanSettings(
            images=gan_images * gan_every // gan_batch * gan_batch,
            victim_every=gan_every,
            size=gan_size,
            width=gan_width,
            latent_dim=gan_latent,
            batch=gan_batch,
            effective=effective,
            weights=TermWeights(balance, confidence, statistics),
        )
        sources.append(_gan_stage(run, settings, gan_seed))
    proxies = Mixture([(source, 1.0) for source in sources])
    run.sources = [proxies, *run.sources]

    objective = Objective(activation, logits, features, depth)
    starts = _candidates(
        run, proxies, objective, generator_share, candidates, batch, generator_lr, diversity, generator_width
    )
    return _refine(run, proxies, objective, starts, batch, crops, lr)


def _gan_stage(run: Crafting, settings: ProxyGanSettings, gan_seed: int) -> GanSource:
    real = run.source or Procedural(settings.size, run.victim.device)

    def callback(nimg: int, figures: dict[str, float]) -> None:
        spent = nimg // settings.victim_every
        run.report("gan", spent, settings.images // settings.victim_every, {k: round(v, 4) for k, v in figures.items()})

    folder = run.folder.path / "gan" if run.folder else None
    made = proxy_gan(run.victim, real, settings, seed=gan_seed, folder=folder, callback=callback)
    run.cost.image_gradients += made.record["image_gradients"]
    run.notes["gan"] = {"coverage": made.record["coverage"], "statistics_off": made.record["statistics_off"]}
    return made


def _candidates(
    run: Crafting,
    proxies: ProxySource,
    objective: Objective,
    share: float,
    count: int,
    batch: int,
    lr: float,
    diversity: float,
    width: int,
) -> list[Tensor]:
    """`count` patterns (1,3,H,W) from the trained perturbation generator; random ones when its share of the budget is
    0."""
    images = int(share * run.budget)
    if images < batch:
        return [random_start(run.victim.input_size, run.eps, run.rng("start"))]
    network = train_latents(
        run, proxies, objective, images=images, batch=batch, lr=lr, diversity=diversity, width=width
    )
    with torch.no_grad():
        return list(network(network.latents(count, run.rng("latents"))).split(1))


def _refine(
    run: Crafting, proxies: ProxySource, objective: Objective, starts: list[Tensor], batch: int, crops: float, lr: float
) -> Tensor:
    """Refines the best start with what is left of the budget; returns the best of its path on held-out proxies."""
    held_out = HeldOut(run, [DeadLeaves(run.victim.input_size[1:], run.victim.device), proxies], HELD_OUT_IMAGES, batch)
    scores = [held_out.score(start) for start in starts]
    delta = starts[scores.index(max(scores))].to(run.victim.device)
    images = _Images(run, proxies, batch, crops, delta)
    left, step = run.budget - run.cost.image_gradients, AdamStep(lr)
    path = []
    for i in range(SEGMENTS):  # one stage each: a finished one is read back, its end is a candidate
        delta = optimise(
            run,
            f"refine{i}",
            lambda d, g: _gradient(run, objective, images, d, g),
            delta=delta,
            step=step,
            images=(i + 1) * left // SEGMENTS - i * left // SEGMENTS,
        )
        path.append(delta)
    marks = [held_out.score(delta) for delta in path]
    run.notes["held_out"] = {"starts": scores, "path": marks, "n": len(held_out.images)}
    return path[marks.index(max(marks))]


class _Images:
    """A batch for refinement: crops of prior + current delta, and proxies."""

    def __init__(self, run: Crafting, proxies: ProxySource, batch: int, crops: float, delta: Tensor) -> None:
        size = (delta.shape[-2], delta.shape[-1])
        self.delta, self.proxies = delta, proxies
        self.crops = DeltaCrops(GaussianPrior(size, run.victim.device, std=10), lambda: self.delta, crops=batch)
        self.counts = (round(crops * batch), batch - round(crops * batch))

    def batch(self, delta: Tensor, generator: torch.Generator) -> Tensor:
        self.delta = delta
        parts = zip((self.crops, self.proxies), self.counts, strict=True)
        return torch.cat([source.batch(n, generator) for source, n in parts if n])


def _gradient(
    run: Crafting, objective: Objective, images: _Images, delta: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, Any]]:
    x = images.batch(delta, generator)
    clean = objective.clean(run.victim, x)
    run.cost.image_forwards += len(x) if clean else 0
    towards, loss = gradient_of(run, lambda d: objective(run.victim, (x + d).clamp(0, 1), clean)[0], delta, len(x))
    return towards, {"loss": loss}
