"""Beside the UniversalPerturbation of adversarial-robustness-toolbox (pip install 'uapgen[art]').

python scripts/bench uap-vs-art      one pass of the 2017 method, in both, on the same images
python scripts/bench time-to-rate    how long `craft` takes to fool as many images as it does
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from uapgen.attacks import BUDGETS, craft
from uapgen.evaluation import evaluate
from uapgen.images.sets import gather, open_images
from uapgen.perturbation import Perturbation
from uapgen.proxies import Procedural
from uapgen.runtime import start_process
from uapgen.victims import Victim, load_victim

# What the toolbox may use for each image: its default, cheaper than as it comes, and its cheapest.
ATTACKERS: dict[str, dict[str, Any]] = {
    "deepfool": {"max_iter": 10, "epsilon": 0.02, "nb_grads": 10, "verbose": False},
    "fgsm": {"eps": 2 / 255, "eps_step": 2 / 255, "batch_size": 1},
}


class FixedImages:
    """The images (N,3,H,W) as a source that walks through them; a generator that was here before gets the same ones."""

    data_class = "driven"

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self._starts: dict[int, int] = {}

    def describe(self) -> dict[str, Any]:
        return {"source": "fixed", "n": len(self.images)}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        start = self._starts.setdefault(generator.initial_seed(), n * len(self._starts))
        return self.images[torch.arange(start, start + n) % len(self.images)]


def art_universal(
    victim: Victim,
    images: Tensor,
    *,
    eps: float,
    passes: int,
    delta: float = 0.2,
    seed: int = 0,
    attacker: str = "deepfool",
) -> Tensor:
    """The toolbox's UniversalPerturbation (1,3,H,W), L-inf; it ends after `passes`, or where 1 - delta are fooled."""
    from art.attacks.evasion import UniversalPerturbation

    from uapgen.interop.art import as_art

    attack = UniversalPerturbation(
        as_art(victim),
        attacker=attacker,
        attacker_params=dict(ATTACKERS[attacker]),
        delta=delta,
        max_iter=passes,
        eps=eps,
        norm="inf",
        verbose=False,
    )
    random.seed(seed)  # the toolbox shuffles with Python's own generator
    attack.generate(images.cpu().numpy())
    return torch.from_numpy(attack.noise).to(images)


@click.command("uap-vs-art")
@click.option("--victim", "spec", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path))
@click.option("--images", "n", default=16, show_default=True)
@click.option("--passes", default=1, show_default=True)
@click.option("--threads", type=int)
def uap_vs_art(spec: str, weights: Path | None, n: int, passes: int, threads: int | None) -> None:
    """`uap` and the toolbox's UniversalPerturbation on the same procedural images."""
    start_process(threads)
    victim, eps = load_victim(spec, weights=weights), 10 / 255
    images = Procedural(victim.input_size[1:], victim.device).batch(n, torch.Generator().manual_seed(0))
    clean = victim(images).argmax(1)
    seconds, rates = {}, {}

    def ours() -> Tensor:
        uap = craft(victim, method="uap", source=FixedImages(images), eps=eps, budget=10**6, images=n, passes=passes)
        return uap.delta[None].to(images)

    for name, run in {"uapgen": ours, "art": lambda: art_universal(victim, images, eps=eps, passes=passes)}.items():
        delta, seconds[name] = _timed(run)
        rates[name] = round((victim((images + delta).clamp(0, 1)).argmax(1) != clean).float().mean().item(), 4)
    result = {
        "victim": victim.name,
        "images": n,
        "passes": passes,
        "fooling_rate": rates,
        "times_as_fast_as_art": round(seconds["art"] / seconds["uapgen"], 2),
    }
    click.echo(json.dumps(result, indent=1))


@click.command("time-to-rate")
@click.option("--victim", "spec", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path))
@click.option("--data", default="foolbox", show_default=True, help="Images that the rates are measured on.")
@click.option("--train-data", type=click.Path(path_type=Path), help="Images for the toolbox; procedural ones without.")
@click.option("--images", "n", default=100, show_default=True, help="How many images the toolbox learns from.")
@click.option("--passes", default=2, show_default=True, help="How often it walks through them.")
@click.option("--attacker", type=click.Choice(list(ATTACKERS)), default="deepfool", show_default=True)
@click.option("--method", default="cbgan", show_default=True, help="What is timed against it; it sees no image.")
@click.option("--threads", type=int)
def time_to_rate(
    spec: str,
    weights: Path | None,
    data: str,
    train_data: Path | None,
    n: int,
    passes: int,
    attacker: str,
    method: str,
    threads: int | None,
) -> None:
    """Seconds of `craft` until it fools as many held-out images as the toolbox's UniversalPerturbation.

    Budgets double from 64 image-gradients until the rate is reached, or the next would exceed `full`; each is a craft
    of its own, from nothing, and the first that reaches it counts.
    """
    start_process(threads)
    victim, eps = load_victim(spec, weights=weights), 10 / 255
    images = _images(victim, train_data, n)

    def rates(uap: Perturbation) -> tuple[float, float, int]:
        result = evaluate(uap, victim, open_images(data, victim.transform))
        row = result.rows[0].fooling_rate
        return row.count / row.n, result.noise[0].fooling_rate.count / row.n, row.n

    delta, seconds = _timed(lambda: art_universal(victim, images, eps=eps, passes=passes, attacker=attacker))
    method_of = {"name": "art", "paper": None, "params": {"attacker": attacker, "passes": passes}, "stopped": None}
    about = {"class": "driven" if train_data else "none", "sources": []}
    uap = Perturbation.create(delta.clamp(-eps, eps), eps=eps, method=method_of, data=about)
    theirs, floor, measured = rates(uap)
    rows: list[dict[str, float]] = []
    while (not rows or rows[-1]["fooling_rate"] < theirs) and (budget := 64 << len(rows)) <= BUDGETS["full"]:
        uap, ours = _timed(partial(craft, victim, method=method, eps=eps, budget=budget))
        rows.append({"budget": budget, "seconds": round(ours, 1), "fooling_rate": rates(uap)[0]})
    result = {
        "victim": victim.name,
        "n": measured,
        "random_floor": round(floor, 4),
        "art": {
            "attacker": attacker,
            "images": n,
            "passes": passes,
            "seconds": round(seconds, 1),
            "fooling_rate": round(theirs, 4),
        },
        method: rows,
        "times_as_fast_as_art": round(seconds / ours, 1) if rows[-1]["fooling_rate"] >= theirs else None,
    }
    click.echo(json.dumps(result, indent=1))


def _images(victim: Victim, folder: Path | None, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if folder is None:
        return Procedural(victim.input_size[1:], victim.device).batch(n, generator)
    pixels = gather(folder, victim).read()
    return pixels[torch.randperm(len(pixels), generator=generator)[:n]].to(victim.device).float().div_(255)


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    made = run()
    return made, time.perf_counter() - started
