"""The proxy GAN: trained on images that need no data, with the victim in the loop, and kept per victim."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed import from_main, is_main, world
from ..errors import UapgenError
from ..proxies import ProxySource
from ..runfolder import RunFolder, load_state, save_state
from ..runtime import rng
from ..victims import Victim
from .balance import coverage
from .losses import relativistic
from .networks import SNResDiscriminator, SNResGenerator
from .sampling import sample_latents
from .settings import Every, TrainSettings
from .trainer import train_gan
from .victim_loss import TermWeights, VictimTerms, resize

COVERAGE_IMAGES = 256


@dataclass(frozen=True)
class ProxyGanSettings:
    """What decides the trained generator's bytes, beside the victim, the images and the seed. `images` counts
    generator steps' images.
    """

    images: int
    victim_every: int = 4
    size: int = 64
    width: int = 12
    latent_dim: int = 64
    batch: int = 16
    lr: float = 5e-4
    effective: bool = True
    weights: TermWeights = field(default_factory=TermWeights)

    def training(self) -> TrainSettings:
        """The average begins after a quarter of the run and remembers some ten batches."""
        return TrainSettings(
            batch=self.batch,
            loss=relativistic,
            lr_g=self.lr,
            lr_d=self.lr,
            betas=(0.0, 0.99),
            ema_halflife=10 * self.batch,
            ema_start=self.images // 4,
        )


class GanSource:
    """Proxy images from a trained generator, resized to the victim's input `size`. A ProxySource.

    `discriminator` is the one that it was trained against, where `proxy_gan` was asked for it.
    """

    def __init__(
        self,
        generator: SNResGenerator,
        size: tuple[int, ...],
        real: ProxySource,
        record: dict[str, Any],
        discriminator: SNResDiscriminator | None = None,
    ) -> None:
        self.generator, self.size, self.record = generator.eval().requires_grad_(False), size, record
        self.discriminator = discriminator.eval().requires_grad_(False) if discriminator else None
        self.data_class = real.data_class
        self._real = real.describe()

    def samples(self, n: int, generator: torch.Generator) -> Tensor:
        """What the generator makes, at its own size: (n,3,size,size) in [0,1]."""
        device = next(self.generator.parameters()).device
        with torch.no_grad():
            return self.generator(sample_latents(n, self.generator.latent_dim, generator, device))

    def resized(self, images: Tensor) -> Tensor:
        """Samples at the victim's size."""
        return resize(images, self.size).clamp(0, 1)

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        return self.resized(self.samples(n, generator))

    def describe(self) -> dict[str, Any]:
        return {"source": "gan", "discriminator_saw": self._real, **self.record}


def proxy_gan(
    victim: Victim,
    real: ProxySource,
    settings: ProxyGanSettings,
    *,
    seed: int,
    folder: Path | None,
    callback: Callable[[int, dict[str, float]], None] | None = None,
    with_discriminator: bool = False,
) -> GanSource:
    """The proxy GAN for this victim: from the cache if the same one was trained before, else trained in `folder`.

    `real` gives what the discriminator sees. The record in `describe()` holds the image-gradients that training took
    (whether or not the cache spared them) and the class coverage of the result: two equal runs describe themselves
    equally. A cache without the discriminator, as earlier versions left it, is trained again where that is wanted.
    Under torchrun all processes call this, train together, and have the same result.
    """
    key = _key(victim, real, settings, seed)
    kept = cache_folder() / "gan" / f"{key}.safetensors"
    kept_d = kept.with_suffix(".discriminator.safetensors")
    generator = SNResGenerator(settings.latent_dim, settings.size, settings.width, seed=seed).to(victim.device)
    discriminator = SNResDiscriminator(settings.size, settings.width, seed=seed).to(victim.device)
    wanted = [kept, kept_d] if with_discriminator else [kept]
    states = from_main(lambda: [load_state(file) for file in wanted] if all(map(Path.is_file, wanted)) else None)
    if states:
        tensors, record = states[0]
        generator.load_state_dict(tensors)
        if with_discriminator:
            discriminator.load_state_dict(states[1][0])
    else:
        if kept.is_file():
            warnings.warn(f"{kept} was kept without its discriminator; the GAN is trained again", stacklevel=2)
        place = folder or kept.with_suffix(".run")
        generator, record = _train(generator, discriminator, victim, real, settings, seed, place, callback)
        if is_main():
            try:  # the discriminator first: the generator's file says that both are there
                save_state(kept_d, discriminator.state_dict(), {"generator": key})
                save_state(kept, generator.state_dict(), record)
            except UapgenError as error:  # a full or read-only disk costs the next run its time, not this one
                warnings.warn(f"the GAN is not kept for the next run: {error}", stacklevel=2)
    held = discriminator if with_discriminator else None
    return GanSource(generator, victim.input_size[1:], real, {"key": key, **record}, held)


def _train(
    generator: SNResGenerator,
    discriminator: SNResDiscriminator,
    victim: Victim,
    real: ProxySource,
    settings: ProxyGanSettings,
    seed: int,
    folder: Path,
    callback: Callable[[int, dict[str, float]], None] | None,
) -> tuple[SNResGenerator, dict[str, Any]]:
    # The trainer hands every process its own part of the batch.
    terms = VictimTerms(
        victim.sharing(False), settings.weights, every=settings.victim_every, effective=settings.effective
    )
    options = {"seed": seed, **dataclasses.asdict(settings), "real": real.describe(), "victim": victim.weights_sha256}
    run = from_main(lambda: RunFolder(folder, options))

    def report(nimg: int, stats: dict[str, float]) -> None:
        if callback:
            callback(nimg, {**stats, **(terms.coverage() if "balance_loss" in stats else {})})

    averaged = train_gan(
        generator,
        discriminator,
        lambda n, g: resize(real.batch(n, g), (settings.size, settings.size)).clamp(0, 1),
        settings.training(),
        folder=run,
        images=settings.images,
        extra_loss=terms,
        state={"terms": terms},
        every=Every(save=64 * settings.batch, grid=max(settings.images // 4, settings.batch)),
        seed=seed,
        device=victim.device,
        callback=report,
    )
    reached = measure_coverage(victim, averaged, settings.batch, seed)
    record = {
        "image_gradients": terms.image_gradients,
        "settings": dataclasses.asdict(settings),
        "seed": seed,
        "statistics_off": terms.statistics_off,
        "coverage": {**{name: round(value, 4) for name, value in reached.items()}, "n": COVERAGE_IMAGES},
    }
    return averaged, json.loads(json.dumps(record))


@torch.no_grad()
def measure_coverage(victim: Victim, generator: SNResGenerator, batch: int, seed: int) -> dict[str, float]:
    """Class coverage of COVERAGE_IMAGES samples on latents that no training step used."""
    draws = rng(seed, "gan-coverage")
    z = sample_latents(COVERAGE_IMAGES, generator.latent_dim, draws, victim.device)
    generator.eval()
    return coverage(
        torch.cat([victim(resize(generator(part), victim.input_size[1:]).clamp(0, 1)) for part in z.split(batch)])
    )


def cache_folder() -> Path:
    """$UAPGEN_CACHE, else ~/.cache/uapgen."""
    return Path(os.environ.get("UAPGEN_CACHE") or Path.home() / ".cache" / "uapgen")


def _key(victim: Victim, real: ProxySource, settings: ProxyGanSettings, seed: int) -> str:
    what = {
        "victim": victim.describe(),
        "device": victim.device.type,
        "precision": victim.precision,
        "real": real.describe(),
        "settings": dataclasses.asdict(settings),
        "seed": seed,
        "version": 1,
        **({"processes": world()} if world() > 1 else {}),  # sums in another order: other bytes
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:20]
