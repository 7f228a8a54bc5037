"""The GAN training loop. Time is counted in images; the same command again continues from the last save."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..distributed import all_sum, is_main, rank, world
from ..errors import UsageError
from ..runfolder import RunFolder
from ..runtime import resolve_device, rng
from .checkpoint import Checkpoint, Ema, Stateful
from .conditional import DiscriminatorNetwork, GeneratorNetwork
from .sampling import latents_and_labels, save_grid
from .settings import Every, TrainSettings, described
from .steps import ExtraLoss, Game, Real, require_finite

GRID_IMAGES = 64
Network = TypeVar("Network", bound=GeneratorNetwork)


def train_gan(
    generator: Network,
    discriminator: DiscriminatorNetwork,
    real: Real,
    settings: TrainSettings,
    *,
    folder: RunFolder | str | Path,
    images: int,
    extra_loss: ExtraLoss | None = None,
    state: Mapping[str, Stateful] | None = None,
    every: Every | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> Network:
    """Trains both networks in place (they move to `device`); returns the moving average of the generator, in eval mode.

    real: `real(n, generator)` -> (n,3,H,W) in [0,1], or that and labels (n,) int64, which conditional networks need.
        Asked for fresh images in each discriminator step. The generator's step reuses the last ones where the loss
        reads them. Labels of generated images are uniform.
    folder: a RunFolder whose options say what this run is; or where to start one, whose options are the settings, the
        extra loss, the classes and the seed. `real` is not among them: a folder is of one set of images.
    images: how long to train, in images of the generator's steps; rounded up to whole batches.
    extra_loss: `extra_loss(fake, nimg)` -> a scalar to add to the generator's loss, and numbers to log; never in the
        discriminator's. What it remembers between calls belongs in `state`, or a resumed run goes another way.
    every: when to log, save and draw; the last state is always saved. Sheets show the average.
    callback: after every step, with the images so far and that step's numbers. It may end the run by raising.

    An interrupted run that is started again ends, on a CPU, in the same bytes. Adam's eps is 1e-6, as published. Under
    torchrun each process takes its part of a batch, and two processes equal one but for rounding; an extra loss sees
    its process's part alone, and losses that average logits (RaSGAN) do so within it.
    Raises UsageError for settings that cannot say what they do where `folder` is a path (see `settings.described`), and
    UapgenError when a loss or a weight is not finite (the last save stays good; a GPU is asked only when something is
    logged or called back), when the real images have another size, and when the folder holds another GAN.
    """
    batch, every = settings.batch, every or Every()
    _check(batch, generator.num_classes, discriminator.num_classes)
    if not isinstance(folder, RunFolder):
        what = {"seed": seed, "num_classes": generator.num_classes, "extra_loss": described(extra_loss, "extra_loss")}
        folder = RunFolder(folder, {**what, **settings.describe()})
    device = resolve_device(device)
    g, d = generator.to(device).train(), discriminator.to(device).train()
    opt_g = torch.optim.Adam(g.parameters(), settings.lr_g, settings.betas, eps=1e-6)
    opt_d = torch.optim.Adam(d.parameters(), settings.lr_d, settings.betas, eps=1e-6)
    ema = Ema(g, halflife=settings.ema_halflife, start=settings.ema_start)
    held = {f"state.{name}": part for name, part in (state or {}).items()}
    parts: dict[str, Stateful] = {"g": g, "d": d, "ema": ema.module, **held}
    checkpoint = Checkpoint(folder, parts, {"opt_g": opt_g, "opt_d": opt_d})
    game = Game(g, d, settings)
    window: dict[str, list[Any]] = defaultdict(list)

    nimg = checkpoint.load()
    while nimg < images:
        draws = rng(seed, "gan", nimg)
        changes = rng(seed, "gan-augment", nimg, rank())
        for _ in range(settings.d_steps):
            x = game.real(real, draws, device)
            stats = game.discriminator_step(opt_d, x, game.latents(draws, device), changes, nimg)
        z = game.latents(draws, device)
        stats |= game.generator_step(opt_g, x, z, changes, extra_loss, nimg)
        nimg += batch
        ema.update(g, nimg, batch)

        saving = nimg >= images or _due(nimg, every.save, batch)
        logging = saving or _due(nimg, every.log, batch)  # a save closes the window, so that no mean spans a resume
        if logging or callback or device.type != "cuda":
            require_finite(stats)
        for name, value in stats.items():
            window[name].append(value)
        if logging:
            folder.log(nimg=nimg, **_means(window))
            window.clear()
        if _due(nimg, every.grid, batch) and is_main():
            _save_average(ema, seed, device, folder.path / f"fakes{nimg:09d}.png")
        if saving:
            checkpoint.save(nimg)
        if callback:
            callback(nimg, {name: float(value) for name, value in stats.items()})
    return ema.module


def _check(batch: int, generated: int | None, judged: int | None) -> None:
    if batch % world():
        raise UsageError(f"batch {batch} does not split over {world()} processes; take a multiple")
    if generated != judged:
        raise UsageError(
            f"generator and discriminator have {generated} and {judged} classes; give both the same, or none"
        )


def _means(window: Mapping[str, list[Any]]) -> dict[str, float]:
    """Means over the window, and over processes."""
    means = {name: sum(map(float, values)) / len(values) for name, values in window.items()}
    if world() == 1:
        return means
    device = next(v.device for values in window.values() for v in values if isinstance(v, Tensor))
    summed = all_sum(torch.tensor(list(means.values()), dtype=torch.float64, device=device))
    return dict(zip(means, (summed / world()).tolist(), strict=True))


@torch.no_grad()
def _save_average(ema: Ema[Network], seed: int, device: torch.device, path: Path) -> None:
    g = ema.module
    save_grid(g(*latents_and_labels(g, GRID_IMAGES, rng(seed, "gan-grid"), device, labels="turns")), path)


def _due(nimg: int, every: int, batch: int) -> bool:
    return every > 0 and nimg // every > (nimg - batch) // every
