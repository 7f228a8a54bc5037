"""The GAN training loop. Time is counted in images; the same command again continues from the last save."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ..distributed import all_sum, is_main, rank, world
from ..errors import UsageError
from ..images.sheets import save_grid
from ..runfolder import RunFolder
from ..runtime import resolve_device, rng
from .augment import Augment
from .checkpoint import Checkpoint, Ema, Stateful
from .conditional import DiscriminatorNetwork, GeneratorNetwork
from .losses import AdversarialLoss, relativistic
from .networks import sample_latents
from .steps import ExtraLoss, FakeWeight, Game, Real, require_finite

GRID_IMAGES = 64
Network = TypeVar("Network", bound=GeneratorNetwork)


def train_gan(
    generator: Network,
    discriminator: DiscriminatorNetwork,
    real: Real,
    *,
    folder: RunFolder | str | Path,
    images: int,
    batch: int,
    loss: AdversarialLoss = relativistic,
    lr_g: float = 2e-4,
    lr_d: float = 2e-4,
    betas: tuple[float, float] = (0.0, 0.999),
    d_steps: int = 1,
    auxiliary: float = 1.0,
    fake_auxiliary: float | None = None,
    fake_weight: FakeWeight | None = None,
    augment: Augment | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    extra_loss: ExtraLoss | None = None,
    state: Mapping[str, Stateful] | None = None,
    ema_halflife: float = 1_774_000,
    ema_start: int = 5_120_000,
    log_every: int = 1024,
    save_every: int = 10_000,
    grid_every: int = 0,
    seed: int = 0,
    device: str | torch.device = "auto",
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> Network:
    """Trains both networks in place (they move to `device`); returns the moving average of the generator, in eval mode.

    real: `real(n, generator)` -> (n,3,H,W) in [0,1], or that and labels (n,) int64, which conditional networks need.
        Asked for fresh images in each of the `d_steps` discriminator steps. The generator's step reuses the last ones
        where the loss reads them. Labels of generated images are uniform.
    folder: of this run alone, or where to start one.
    images: how long to train, in images of the generator's steps; rounded up to whole batches.
    auxiliary, fake_auxiliary, fake_weight, augment: see `steps.Game`; e.g. `augment.diff_augment`.
    precision: bf16 is autocast.
    extra_loss: `extra_loss(fake, nimg)` -> a scalar to add to the generator's loss, and numbers to log; never in the
        discriminator's. What it remembers between calls belongs in `state`, or a resumed run goes another way.
    ema_halflife, ema_start: in images, see `Ema`; the defaults are the published ones, far beyond a short run.
    log_every, save_every, grid_every: in images; 0 is never. The last state is always saved. Grids show the average.
    callback: after every step, with the images so far and that step's numbers. It may end the run by raising.

    An interrupted run that is started again ends, on a CPU, in the same bytes. Adam's eps is 1e-6, as published. Under
    torchrun each process takes its part of `batch`, and two processes equal one but for rounding; an extra loss sees
    its process's part alone, and losses that average logits (RaSGAN) do so within it.
    Raises UapgenError when a loss or a weight is not finite (the last save stays good; a GPU is asked only when
    something is logged or called back), when the real images have another size, and when the folder holds another GAN.
    """
    if batch < 1 or d_steps < 1:
        raise UsageError(f"batch {batch} and d_steps {d_steps} must both be at least 1")
    if batch % world():
        raise UsageError(f"batch {batch} does not split over {world()} processes; take a multiple")
    if generator.num_classes != discriminator.num_classes:
        given = f"{generator.num_classes} and {discriminator.num_classes}"
        raise UsageError(f"generator and discriminator have {given} classes; give both the same num_classes, or none")
    if not isinstance(folder, RunFolder):
        lengths = {"ema_halflife": ema_halflife, "ema_start": ema_start}
        rates = {"lr_g": lr_g, "lr_d": lr_d, "betas": betas, "d_steps": d_steps}
        extras = {"num_classes": generator.num_classes, "augment": getattr(augment, "__name__", None)}
        extras |= {"precision": None if precision == "fp32" else precision}
        extras |= {"fake_auxiliary": fake_auxiliary, "fake_weight": getattr(fake_weight, "__name__", None)}
        extras |= {"auxiliary": None if discriminator.classifier is None else auxiliary}
        given_extras = {name: value for name, value in extras.items() if value is not None}
        folder = RunFolder(folder, {"seed": seed, "batch": batch, **rates, **lengths, **given_extras})
    device = resolve_device(device)
    g, d = generator.to(device).train(), discriminator.to(device).train()
    opt_g = torch.optim.Adam(g.parameters(), lr_g, betas, eps=1e-6)
    opt_d = torch.optim.Adam(d.parameters(), lr_d, betas, eps=1e-6)
    ema = Ema(g, halflife=ema_halflife, start=ema_start)
    parts: dict[str, Stateful] = {
        "g": g,
        "d": d,
        "ema": ema.module,
        **{f"state.{k}": v for k, v in (state or {}).items()},
    }
    checkpoint = Checkpoint(folder, parts, {"opt_g": opt_g, "opt_d": opt_d})
    game = Game(g, d, loss, auxiliary, augment, precision == "bf16", fake_auxiliary, fake_weight)
    window: dict[str, list[Any]] = defaultdict(list)

    nimg = checkpoint.load()
    while nimg < images:
        draws = rng(seed, "gan", nimg)
        changes = rng(seed, "gan-augment", nimg, rank())
        for _ in range(d_steps):
            x = game.real(real, batch, draws, device)
            stats = game.discriminator_step(opt_d, x, game.latents(batch, draws, device), changes, nimg)
        z = game.latents(batch, draws, device)
        stats |= game.generator_step(opt_g, x, z, changes, extra_loss, nimg)
        nimg += batch
        ema.update(g, nimg, batch)

        saving = nimg >= images or _due(nimg, save_every, batch)
        logging = saving or _due(nimg, log_every, batch)  # a save closes the window, so that no mean spans a resume
        if logging or callback or device.type != "cuda":
            require_finite(stats)
        for name, value in stats.items():
            window[name].append(value)
        if logging:
            folder.log(nimg=nimg, **_means(window))
            window.clear()
        if _due(nimg, grid_every, batch) and is_main():
            _save_average(ema, seed, device, folder.path / f"fakes{nimg:09d}.png")
        if saving:
            checkpoint.save(nimg)
        if callback:
            callback(nimg, {name: float(value) for name, value in stats.items()})
    return ema.module


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
    z = sample_latents(GRID_IMAGES, g.latent_dim, rng(seed, "gan-grid"), device)
    labels = None if g.num_classes is None else torch.arange(GRID_IMAGES, device=device) % g.num_classes
    save_grid(g(z, labels), path)


def _due(nimg: int, every: int, batch: int) -> bool:
    return every > 0 and nimg // every > (nimg - batch) // every
