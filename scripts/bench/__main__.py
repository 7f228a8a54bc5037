"""Image-gradients per second through a victim as uapgen runs it, against a plain loop, as ratios within one run.

python scripts/bench craft --victim embedded/efficientnet_lite0
python scripts/bench uap-vs-art     one pass of the 2017 method, here and in adversarial-robustness-toolbox
python scripts/bench time-to-rate   seconds until as many images are fooled as by its UniversalPerturbation
python scripts/bench gan            the SNDCGAN step
python scripts/bench evaluate       `evaluate` against the forward passes that it needs
python scripts/bench memory         peak memory of `evaluate` over 1,000 and 10,000 images
python scripts/bench scale          craft under torchrun with 1, 2, ... processes

The plain loop is what a script would do: fp32, contiguous, weight gradients on, the allocator as it comes. Variants
take turns, so that a machine whose speed drifts does not favour one; medians are printed.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from uapgen.runtime import start_process
from uapgen.victims import Victim, load_victim


@click.group()
def main() -> None:
    """Speed as ratios within one run."""


@main.command("craft")
@click.option("--victim", "spec", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path))
@click.option("--batch", default=16, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--threads", type=int)
def craft_loop(spec: str, weights: Path | None, batch: int, rounds: int, threads: int | None) -> None:
    """Image-gradients per second through a victim, against a plain loop."""
    victim = load_victim(spec, weights=weights)
    plain = _plain(victim)
    if threads:
        torch.set_num_threads(threads)
    images = torch.rand(batch, *victim.input_size, generator=torch.Generator().manual_seed(0)).to(victim.device)
    before = _median({"plain": lambda d: plain(images + d)}, images, rounds)["plain"]
    start_process(
        threads
    )  # cannot be undone in a process, so the plain loop is measured first, and again beside the rest
    variants: dict[str, Callable[[Tensor], Tensor]] = {
        "plain, memory kept": lambda d: plain(images + d),
        "uapgen": lambda d: victim(images + d),
    }
    after = _median(variants, images, rounds)
    rows = {"plain": before, **after}
    result = {
        "victim": victim.name,
        "device": str(victim.device),
        "precision": victim.precision,
        "threads": torch.get_num_threads(),
        "batch": batch,
        "image_gradients_per_second": {name: round(batch / seconds, 2) for name, seconds in rows.items()},
        "times_as_fast_as_plain": {name: round(before / seconds, 2) for name, seconds in rows.items()},
    }
    click.echo(json.dumps(result, indent=1))


def _plain(victim: Victim) -> Callable[[Tensor], Tensor]:
    """The same classifier without any of uapgen's care."""
    module: nn.Module = copy.deepcopy(victim.module).to(memory_format=torch.contiguous_format).requires_grad_(True)
    mean = torch.tensor(victim.preprocessing.mean, device=victim.device).view(1, -1, 1, 1)
    std = torch.tensor(victim.preprocessing.std, device=victim.device).view(1, -1, 1, 1)
    return lambda x: module((x - mean) / std)


def _median(variants: dict[str, Callable[[Tensor], Tensor]], images: Tensor, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):  # the first is a warm-up
        for name, forward in variants.items():
            delta = torch.zeros_like(images[:1], requires_grad=True)
            started = time.perf_counter()
            forward(delta).square().mean().backward()
            if images.is_cuda:
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    from against_art import time_to_rate, uap_vs_art
    from evaluation import evaluate_bench, memory
    from gan_step import gan
    from scaling import scale

    for command in (uap_vs_art, time_to_rate, gan, evaluate_bench, memory, scale):
        main.add_command(command)
    main()
