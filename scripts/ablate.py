"""What each kind of proxy gives, and what the GAN and its regulariser add: arms at equal image-gradients, one table.

python scripts/ablate.py --data DIR --budget 2000 --out results/ablation-lite0      (half an hour on two CPU cores)

Every arm is cbgan's refinement with other images to craft on. Appends a line per finished cell to OUT/cells.jsonl and
skips the cells that are there, so that the same command goes on after an interruption. The arms on photographs (data
class driven) need --train and are left out without it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch

from uapgen.attacks import Crafting, craft, parse_budget
from uapgen.attacks.core.impressions import ImpressionSettings, class_impressions
from uapgen.cli.compare import assign
from uapgen.cli.options import parse_settings
from uapgen.evaluation import evaluate
from uapgen.images.sets import ImageSet, gather, open_images
from uapgen.proxies import Folder, ProxySource, parse_source
from uapgen.runtime import atomic_write, rng, start_process
from uapgen.tables import spread
from uapgen.victims import Victim, load_victim

IMPRESSIONS_SHARE = 0.4  # of the budget, as in the method aaa
FEW = 500


@dataclass(frozen=True)
class Arm:
    """`label` is the name in cells and table; `source` makes the images of a run, whose own cost it adds to."""

    label: str
    params: dict[str, Any] = field(default_factory=dict)
    source: Callable[[Crafting, Path | None], ProxySource | None] = lambda run, train: None
    driven: bool = False


def named(spec: str) -> Callable[[Crafting, Path | None], ProxySource]:
    return lambda run, train: parse_source(spec, run.victim.input_size[1:], run.victim.device)


def impressions(run: Crafting, train: Path | None) -> ProxySource:
    return class_impressions(run, ImpressionSettings(), images=int(IMPRESSIONS_SHARE * run.budget))


def photographs(most: int | None) -> Callable[[Crafting, Path | None], ProxySource]:
    """All of --train, or `most` of them, drawn by seed: in a folder sorted by class the first ones are no sample."""

    def source(run: Crafting, train: Path | None) -> ProxySource:
        assert train is not None
        victim = run.victim
        images = gather(train, victim)
        order = torch.randperm(len(images), generator=rng(run.seed, "ablate")).tolist()
        return Folder(images.subset(sorted(order[:most])), data_class="driven", device=victim.device)

    return source


NO_GAN = {"gan": False}
GAN = {"gan_from": 0}
NO_LAYERS = {"activation": 0.0, "displacement": 0.0, "agreement": 0.0}
ARMS = {
    "gaussian": Arm("no GAN: Gaussian noise", NO_GAN, named("gaussian")),
    "jigsaw": Arm("no GAN: jigsaws", NO_GAN, named("jigsaw")),
    "dead-leaves": Arm("no GAN: dead leaves", NO_GAN, named("dead-leaves")),
    "procedural": Arm("no GAN: procedural images alone", NO_GAN),
    "no-generator": Arm("no GAN, no perturbation generator", {**NO_GAN, "generator_share": 0.0}),
    "no-crops": Arm("no GAN, no crops of the pattern", {**NO_GAN, "crops": 0.0}),
    "activation-alone": Arm("no GAN, no displacement", {**NO_GAN, "activation": 1.0, "displacement": 0.0}),
    "displacement-alone": Arm("no GAN, displacement alone", {**NO_GAN, "activation": 0.0, "displacement": 1.0}),
    "features": Arm("no GAN, and cosine at the features", {**NO_GAN, "features": 3.0}),
    "no-agreement": Arm("no GAN, no agreement of logits", {**NO_GAN, "agreement": 0.0}),
    "all-layers": Arm("no GAN, energy of all layers", {**NO_GAN, "start": 0.0}),
    "small-steps": Arm("no GAN, first step of five levels", {**NO_GAN, "lr": 5 / 255}),
    "cosine": Arm("no GAN, cosine at logits instead", {**NO_GAN, **NO_LAYERS, "logits": 1.0}),
    "impressions": Arm("no GAN: class impressions", {**NO_GAN, "pool": 0}, impressions),
    "gan-free": Arm("GAN without the victim", {**GAN, "balance": 0.0, "confidence": 0.0, "statistics": 0.0}),
    "gan-plain": Arm("GAN without regulariser", {**GAN, "balance": 0.0}),
    "gan-w1": Arm("class-balancing GAN, w = 1 (DeGAN)", {**GAN, "effective": False}),
    "gan-no-statistics": Arm("class-balancing GAN, no batch-norm matching", {**GAN, "statistics": 0.0}),
    "gan": Arm("class-balancing GAN (effective frequency)", GAN),
    "gan-alone": Arm("class-balancing GAN, its samples alone", {**GAN, "gan_weight": 1.0}),
    "gan-gold": Arm("class-balancing GAN, GOLD-filtered", {**GAN, "proxy_filter": "gold"}),
    "real-500": Arm(f"no GAN: {FEW} photographs", {**NO_GAN, "pool": 0}, photographs(FEW), driven=True),
    "real-all": Arm("no GAN: all photographs", {**NO_GAN, "pool": 0}, photographs(None), driven=True),
}


@click.command()
@click.option("--victim", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--transfer-victim", "transfer", multiple=True, help="Measured too; repeatable.")
@click.option("--weights", multiple=True, metavar="[SPEC=]FILE", help="Local weights of a victim; repeatable.")
@click.option("--data", required=True, help="Evaluation images.")
@click.option("--train", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Photographs to craft on.")
@click.option("--limit", type=int)
@click.option("--budget", default="quick", show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(ARMS)), help="Run these arms alone; repeatable.")
@click.option("--skip", multiple=True, type=click.Choice(list(ARMS)), help="Leave an arm out; repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of all arms; repeatable.")
@click.option("--threads", type=int)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    victim: str,
    transfer: tuple[str, ...],
    weights: tuple[str, ...],
    data: str,
    train: Path | None,
    limit: int | None,
    budget: str,
    seeds: str,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    settings: tuple[str, ...],
    threads: int | None,
    out: Path,
) -> None:
    arms = [ARMS[name] for name in ARMS if name in (only or ARMS) and name not in skip]
    if not train and (missing := [arm.label for arm in arms if arm.driven]):
        if only:
            raise click.UsageError(f"{', '.join(missing)}: give --train DIR")
        click.echo(f"left out without --train DIR: {', '.join(missing)}", err=True)
        arms = [arm for arm in arms if not arm.driven]
    start_process(threads)
    files = assign("--weights", weights, [victim, *transfer])
    target, *others = [
        Measured(loaded, open_images(data, loaded, limit=limit))
        for loaded in (load_victim(spec, weights=files.get(spec)) for spec in (victim, *transfer))
    ]
    out.mkdir(parents=True, exist_ok=True)
    cells = _read(out / "cells.jsonl")
    common = parse_settings(settings)
    if any(cell.get("settings", {}) != common for cell in cells):
        raise click.UsageError(f"{out} holds cells of another --set; take another --out")
    if other := {cell["budget"] for cell in cells} - {parse_budget(budget)}:
        raise click.UsageError(f"{out} holds cells of {other.pop()} image-gradients; take another --out")
    for seed in map(int, seeds.split(",")):
        for arm in arms:
            if not any(cell["arm"] == arm.label and cell["seed"] == seed for cell in cells):
                cells.append(_cell(target, others, arm, common, train, parse_budget(budget), seed))
                with (out / "cells.jsonl").open("a") as file:
                    file.write(json.dumps(cells[-1]) + "\n")
                click.echo(json.dumps(cells[-1]))
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(_table(cells, victim, data, len(target.images)))
    click.echo((out / "table.md").read_text())


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Measured:
    """A victim and the images that it is measured on."""

    victim: Victim
    images: ImageSet


def _cell(
    target: Measured,
    others: list[Measured],
    arm: Arm,
    settings: dict[str, Any],
    train: Path | None,
    budget: int,
    seed: int,
) -> dict[str, Any]:
    victim = target.victim
    run = Crafting(victim, None, 10 / 255, seed, budget)
    source = arm.source(run, train)
    spent = run.cost.image_gradients
    with tempfile.TemporaryDirectory() as folder:  # the GAN's seed is the run's: its variance belongs into the table
        params = {"gan_seed": seed, **settings, **arm.params}
        uap = craft(victim, source=source, seed=seed, budget=budget - spent, folder=Path(folder) / "run", **params)
    result = evaluate(uap, victim, target.images)
    row = result.rows[0]
    elsewhere = {
        other.victim.name: evaluate(uap, other.victim, other.images, resize=True).rows[0].fooling_rate.to_json()
        for other in others
    }
    return {
        "arm": arm.label,
        "seed": seed,
        "budget": budget,
        "settings": settings,
        "image_gradients": spent + uap.card["cost"]["image_gradients"],
        "data_class": uap.data_class,
        "changed": row.fooling_rate.count,
        "n": row.n,
        "floor": result.noise[0].fooling_rate.count,
        "transfer": {name: rate["rate"] for name, rate in elsewhere.items()},
        "coverage": uap.card["method"].get("notes", {}).get("gan", {}).get("coverage"),
        "gold": uap.card["method"].get("notes", {}).get("gold"),
        "delta_sha256": uap.sha256,
        "victim": victim.weights_sha256,
    }


def _table(cells: list[dict[str, Any]], victim: str, data: str, n: int) -> str:
    elsewhere = next((cell["transfer"] for cell in cells if cell.get("transfer")), [])
    settings = "".join(f" {key}={value}," for key, value in cells[0].get("settings", {}).items())
    lines = [
        f"{victim}, eps 10/255,{settings} {cells[0]['budget']} image-gradients, {n} images of {Path(data).name}, "
        f"8-bit rounded; random +-eps floor {100 * cells[0]['floor'] / cells[0]['n']:.1f}. Transfer: "
        f"the mean over {', '.join(elsewhere) or 'no victim'}.",
        "",
        "| arm | data | fooling rate, mean ± std | per seed | transfer | classes hit of 256 | KL to uniform (nats) "
        "| confidence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label in [arm.label for arm in ARMS.values() if any(cell["arm"] == arm.label for cell in cells)]:
        mine = sorted((cell for cell in cells if cell["arm"] == label), key=lambda cell: cell["seed"])
        rates = [100 * cell["changed"] / cell["n"] for cell in mine]
        seen = [cell["coverage"] for cell in mine if cell["coverage"]]
        shown = [
            f"{statistics.mean(c[key] for c in seen):.{digits}f}" if seen else "-"
            for key, digits in (("classes", 0), ("kl_mean", 2), ("confidence", 2))
        ]
        each = ", ".join(f"{r:.1f}" for r in rates)
        carried = [100 * statistics.mean(found.values()) for cell in mine if (found := cell.get("transfer"))]
        first = [label, mine[0]["data_class"], spread(rates, 1), each, spread(carried, 1) if carried else "-"]
        lines.append(f"| {' | '.join([*first, *shown])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
