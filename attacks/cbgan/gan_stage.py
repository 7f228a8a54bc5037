"""cbgan's first stage: a class-balancing GAN with the victim in the loop, whose samples are a part of the proxies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...distributed import world
from ...errors import UsageError
from ...gan.balance import coverage
from ...gan.gold import GoldPool
from ...gan.networks import SNRES_GENERATOR
from ...gan.proxy_gan import GanSource, ProxyGanSettings, proxy_gan
from ...gan.victim_loss import TermWeights
from ...proxies import Mixture, Pool, Procedural, ProxySource
from ..core.method import at_least, one_of, within
from ..core.run import Crafting

GAN_POOL = 1024  # images that the discriminator sees as real


@dataclass(frozen=True)
class GanStage:
    """Whether a GAN is trained, how, and which of its samples join the proxies.

    Its discriminator sees procedural images, or the user's. Its generator also answers to the victim, by the terms
    `balance`, `confidence` and `statistics`. It is cached per victim.
    """

    gan: Annotated[bool, "train a GAN, whose samples join the proxies; else refinement has its image-gradients"] = True
    gan_from: Annotated[int, at_least(0), "smaller budgets (image-gradients) train no GAN"] = 24_000
    gan_share: Annotated[float, within(0, 1), "share of the budget that the GAN takes"] = 0.15
    gan_every: Annotated[int, at_least(1, at_most=1000), "generator steps for each at which the victim looks"] = 4
    gan_seed: Annotated[int, at_least(0), "seed of the GAN, whatever the run's is: runs share the cached one"] = 0
    gan_size: Annotated[int, within(32, 128), "side of the GAN's images in pixels: 32, 64 or 128"] = 64
    gan_width: Annotated[int, at_least(1, at_most=256), "width of both networks, in channels"] = 12
    gan_latent: Annotated[int, at_least(1, at_most=4096), "dimension of the GAN's latents"] = 64
    gan_batch: Annotated[int, at_least(2, at_most=4096), "images a step of the GAN"] = 16
    gan_weight: Annotated[float, within(0, 1), "share of the proxies that are the GAN's samples"] = 0.2
    proxy_filter: Annotated[str, one_of("none", "gold"), "gold keeps under-represented samples only"] = "none"
    gold_keep: Annotated[float, within(0.01, 1), "share of the samples that the filter keeps"] = 0.5
    effective: Annotated[bool, "weigh classes by their effective frequency; else all alike, as DeGAN does"] = True
    balance: Annotated[float, at_least(0, at_most=1000), "weight of the class-balancing regulariser"] = 10.0
    confidence: Annotated[float, at_least(0, at_most=1000), "weight of the entropy of single predictions"] = 4.0
    statistics: Annotated[
        float, at_least(0, at_most=1000), "weight of the distance from the victim's batch statistics"
    ] = 0.3

    @property
    def gold(self) -> bool:
        return self.proxy_filter == "gold"

    def images(self, budget: int) -> int:
        """Image-gradients, in whole batches, that the GAN takes of `budget`; 0 where none is trained. A filter wants
        the GAN at any budget.
        """
        wanted = self.gan and (self.gold or budget >= self.gan_from)
        return int(self.gan_share * budget) // self.gan_batch * self.gan_batch if wanted else 0

    def check(self, budget: int, pool: int) -> None:
        """Raises UsageError for settings that are wrong only together, or with this budget or pool of proxies."""
        if self.gan_size not in SNRES_GENERATOR:
            raise UsageError(
                f"cbgan: gan_size={self.gan_size} is no size of the GAN; expected {sorted(SNRES_GENERATOR)}"
            )
        if self.gold and not self.gan:
            raise UsageError(
                "cbgan: proxy_filter=gold filters the GAN's samples, and gan=false leaves it out; drop one"
            )
        if self.gold and not pool:
            raise UsageError("cbgan: proxy_filter=gold fills a pool, and pool=0 wants none; drop one of them")
        if self.gold and not self.images(budget):
            raise UsageError(f"cbgan: budget {budget} leaves the GAN no batch to filter samples of; give a larger one")
        if self.images(budget) and self.gan_batch % world():
            split = f"does not split over {world()} processes"
            raise UsageError(f"cbgan: gan_batch={self.gan_batch} {split}; give a multiple, or gan=false")


def make_proxies(run: Crafting, settings: GanStage, pool: int) -> ProxySource:
    """The user's images, or procedural ones, mixed with samples of the GAN where the budget pays for one.

    Each is a pool of `pool` images, or fresh ones where that is 0.
    """
    real = _pooled(run.source or Procedural(run.victim.input_size[1:], run.victim.device), pool, run.seed)
    images = settings.images(run.budget)
    if not images:
        return Mixture([(real, 1.0)])
    gan = _trained(run, settings, images)
    samples = _filtered(run, gan, pool, settings.gold_keep) if settings.gold else _pooled(gan, pool, run.seed)
    return Mixture([(real, 1 - settings.gan_weight), (samples, settings.gan_weight)])


def _pooled(source: ProxySource, n: int, seed: int) -> ProxySource:
    return Pool(source, n, seed) if n else source


def _trained(run: Crafting, settings: GanStage, images: int) -> GanSource:
    """The GAN after `images` image-gradients, from the cache if it is there; it costs the same."""
    real = Pool(run.source or Procedural(settings.gan_size, run.victim.device), GAN_POOL, settings.gan_seed)

    def callback(nimg: int, figures: dict[str, float]) -> None:
        done = nimg // settings.gan_every
        run.report("gan", done, {name: round(value, 4) for name, value in figures.items()}, uncounted=done)

    gan = proxy_gan(
        run.victim.counted(None),
        real,
        ProxyGanSettings(
            images=images * settings.gan_every,
            victim_every=settings.gan_every,
            size=settings.gan_size,
            width=settings.gan_width,
            latent_dim=settings.gan_latent,
            batch=settings.gan_batch,
            effective=settings.effective,
            weights=TermWeights(settings.balance, settings.confidence, settings.statistics),
        ),
        seed=settings.gan_seed,
        folder=run.folder.path / "gan" if run.folder else None,
        callback=callback,
        with_discriminator=settings.gold,
    )
    batch, looks = settings.gan_batch, gan.record["coverage"]["n"]
    passes = gan.record["image_gradients"] // batch
    run.account("gan", batch, steps=images * settings.gan_every // batch, passes=passes, image_forwards=looks)
    run.notes["gan"] = {"coverage": gan.record["coverage"], "statistics_off": gan.record["statistics_off"]}
    return gan


def _filtered(run: Crafting, gan: GanSource, pool: int, keep: float) -> ProxySource:
    """The under-represented share `keep` of samples, as a pool of `pool`; takes forward passes of the victim."""
    # Now, and not at the first draw: a resumed stage sets the cost back to what it was, this included.
    kept = GoldPool(gan, lambda images: run.look(run.victim, images), pool, run.seed, keep=keep)
    seen = {"drawn": coverage(kept.logits), "kept": coverage(kept.logits[kept.kept])}
    run.notes["gold"] = {part: {k: round(v, 4) for k, v in figures.items()} for part, figures in seen.items()}
    return kept
