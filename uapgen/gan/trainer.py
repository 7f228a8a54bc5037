"""The GAN training loop. Time is counted in images; the same command again continues from the last save."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UapgenError, UsageError
from ..runfolder import RunFolder
from ..runtime import resolve_device, rng
from .checkpoint import Checkpoint, Stateful
from .ema import Ema
from .grid import save_grid
from .losses import AdversarialLoss, relativistic
from .networks import Discriminator, Generator, sample_latents

Real = Callable[[int, torch.Generator], Tensor]
ExtraLoss = Callable[[Tensor, int], tuple[Tensor, dict[str, Any]]]
GRID_IMAGES = 64


def train_gan(
    generator: Generator,
    discriminator: Discriminator,
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
) -> Generator:
    """Trains both networks in place (they move to `device`); returns the moving average of the generator, in eval mode.

    real: `real(n, generator)` -> (n,3,H,W) in [0,1], asked for fresh images in each of the `d_steps` discriminator
        steps. The generator's step reuses the last ones where the loss reads them.
    folder: of this run alone, or where to start one.
    images: how long to train, in images of the generator's steps; rounded up to whole batches.
    extra_loss: `extra_loss(fake, nimg)` -> a scalar to add to the generator's loss, and numbers to log; never in the
        discriminator's. What it remembers between calls belongs in `state`, or a resumed run goes another way.
    ema_halflife, ema_start: in images, see `Ema`; the defaults are the published ones, far beyond a short run.
    log_every, save_every, grid_every: in images; 0 is never. The last state is always saved. Grids show the average.
    callback: after every step, with the images so far and that step's numbers. It may end the run by raising.

    An interrupted run that is started again ends, on a CPU, in the same bytes. Adam's eps is 1e-6, as published.
    Raises UapgenError when a loss or a weight is not finite (the last save stays good), when the real images have
    another size, and when the folder holds another GAN.
    """
    if batch < 1 or d_steps < 1:
        raise UsageError(f"batch {batch} and d_steps {d_steps} must both be at least 1")
    if not isinstance(folder, RunFolder):
        lengths = {"ema_halflife": ema_halflife, "ema_start": ema_start}
        rates = {"lr_g": lr_g, "lr_d": lr_d, "betas": betas, "d_steps": d_steps}
        folder = RunFolder(folder, {"seed": seed, "batch": batch, **rates, **lengths})
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
    grid_latents = sample_latents(GRID_IMAGES, g.latent_dim, rng(seed, "gan-grid"), device)
    window: dict[str, list[float]] = defaultdict(list)

    nimg = checkpoint.load()
    while nimg < images:
        draws = rng(seed, "gan", nimg)
        for _ in range(d_steps):
            x = real(batch, draws).to(device)
            z = sample_latents(batch, g.latent_dim, draws, device)
            stats = _discriminator_step(g, d, opt_d, loss, x, z)
        z = sample_latents(batch, g.latent_dim, draws, device)
        stats |= _generator_step(g, d, opt_g, loss, x, z, extra_loss, nimg)
        nimg += batch
        ema.update(g, nimg, batch)

        for name, value in stats.items():
            window[name].append(value)
        saving = nimg >= images or _due(nimg, save_every, batch)
        if saving or _due(nimg, log_every, batch):  # a save closes the window, so that no mean spans a resume
            folder.log(nimg=nimg, **{name: sum(values) / len(values) for name, values in window.items()})
            window.clear()
        if _due(nimg, grid_every, batch):
            with torch.no_grad():
                save_grid(ema.module(grid_latents), folder.path / f"fakes{nimg:09d}.png")
        if saving:
            checkpoint.save(nimg)
        if callback:
            callback(nimg, stats)
    return ema.module


def _discriminator_step(
    g: nn.Module, d: nn.Module, optimizer: torch.optim.Optimizer, loss: AdversarialLoss, x: Tensor, z: Tensor
) -> dict[str, float]:
    with torch.no_grad():
        fake = g(z)
    if x.shape != fake.shape:
        raise UapgenError(f"the real images are {tuple(x.shape)}, the generator's {tuple(fake.shape)}; make them equal")
    on_real, on_fake = d(torch.cat([x, fake])).chunk(2)  # one pass: no batch norm in D, and one power iteration
    d_loss = loss.d_loss(on_real, on_fake)
    stats = {"d_loss": _finite(d_loss, "the discriminator's loss")}
    optimizer.zero_grad()
    d_loss.backward()
    optimizer.step()
    return stats | {"d_real": on_real.mean().item(), "d_fake": on_fake.mean().item()}


def _generator_step(
    g: nn.Module,
    d: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: AdversarialLoss,
    x: Tensor,
    z: Tensor,
    extra_loss: ExtraLoss | None,
    nimg: int,
) -> dict[str, float]:
    fake = g(z)
    on_fake = d(fake)
    with torch.no_grad():
        on_real = d(x) if loss.g_needs_real else on_fake.new_empty(0)
    total = loss.g_loss(on_real, on_fake)
    stats = {"g_loss": _finite(total, "the generator's loss")}
    if extra_loss:
        extra, numbers = extra_loss(fake, nimg)
        stats |= {"extra_loss": _finite(extra, "the generator's extra loss")}
        stats |= {name: float(value) for name, value in numbers.items()}
        total = total + extra
    optimizer.zero_grad()
    total.backward(inputs=list(g.parameters()))  # no gradients for D's weights
    optimizer.step()
    return stats


def _finite(loss: Tensor, name: str) -> float:
    value = loss.item()
    if value - value != 0:  # nan and both infinities
        raise UapgenError(
            f"{name} became {value}; lower the learning rates (or the extra loss's weight) and start again"
        )
    return value


def _due(nimg: int, every: int, batch: int) -> bool:
    return every > 0 and nimg // every > (nimg - batch) // every
