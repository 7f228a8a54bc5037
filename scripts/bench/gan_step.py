"""Images per second of the SNDCGAN step as uapgen runs it, against a plain eager fp32 loop of the same networks."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from uapgen.gan import Every, SNDCDiscriminator, SNDCGenerator, TrainSettings, train_gan
from uapgen.longtail.generator import fast_layout
from uapgen.runtime import resolve_device, start_process


@click.command("gan")
@click.option("--width", default=64, show_default=True, help="64 is the published network.")
@click.option("--batch", default=64, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Steps in a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", type=int)
def gan(width: int, batch: int, steps: int, rounds: int, device: str, threads: int | None) -> None:
    """The SNDCGAN step against a plain eager fp32 loop.

    The plain loop is what a script would do: fp32, contiguous, real and generated images through D one after the other,
    the allocator as it comes; it is measured first, because the allocator's setting cannot be undone. A round is some
    steps; medians over the rounds.
    """
    where = resolve_device(device)
    if threads:
        torch.set_num_threads(threads)
    images = torch.rand(256, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(where)
    plain = _median(_plain(width, batch, images), steps, rounds, where)
    start_process(threads)
    rates = {"plain fp32": plain}
    for precision in ("fp32", "bf16"):
        rates[f"uapgen {precision}"] = _median(_ours(width, batch, images, precision), steps, rounds, where)
    result = {
        "network": f"SNDCGAN, width {width}, batch {batch}",
        "device": str(where),
        "threads": torch.get_num_threads(),
        "images_per_second": {name: round(batch / seconds, 1) for name, seconds in rates.items()},
        "times_as_fast_as_plain": {name: round(plain / seconds, 2) for name, seconds in rates.items()},
    }
    click.echo(json.dumps(result, indent=1))


def _plain(width: int, batch: int, images: Tensor) -> Callable[[int], None]:
    g, d = SNDCGenerator(width=width).to(images.device), SNDCDiscriminator(width).to(images.device)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999), eps=1e-6) for net in (g, d))

    def run(steps: int) -> None:
        for _ in range(steps):
            real = images[torch.randint(len(images), (batch,))]
            fake = g(torch.randn(batch, g.latent_dim, device=images.device)).detach()
            opt_d.zero_grad()
            F.softplus(d(fake) - d(real)).mean().backward()
            opt_d.step()
            fake = g(torch.randn(batch, g.latent_dim, device=images.device))
            opt_g.zero_grad()
            F.softplus(d(real).detach() - d(fake)).mean().backward()
            opt_g.step()

    return run


def _ours(width: int, batch: int, images: Tensor, precision: str) -> Callable[[int], None]:
    g, d = (fast_layout(net.to(images.device)) for net in (SNDCGenerator(width=width), SNDCDiscriminator(width)))

    def real(n: int, draws: torch.Generator) -> Tensor:
        return images[torch.randint(len(images), (n,), generator=draws).to(images.device)]

    def run(steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainSettings(batch, precision=precision)  # type: ignore[arg-type]
            every, device = Every(log=0), images.device
            train_gan(g, d, real, settings, folder=folder, images=steps * batch, every=every, device=device)

    return run


def _median(run: Callable[[int], None], steps: int, rounds: int, device: torch.device) -> float:
    """Seconds a step. What a round does once (a folder, optimisers, two saves) is measured by an empty one and taken
    off."""

    def timed(n: int) -> float:
        started = time.perf_counter()
        run(n)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed(1)
    return statistics.median((timed(steps + 1) - timed(1)) / steps for _ in range(rounds))
