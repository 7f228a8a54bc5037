"""What the GAN and its regulariser add: cbgan's arms at equal image-gradients, several seeds, one table.

python scripts/ablate.py --data DIR --budget 2000 --out results/ablation-lite0      (half an hour on two CPU cores)

Appends a line per finished cell to OUT/cells.jsonl and skips the cells that are there, so that the same command goes on
after an interruption.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import click

from uapgen.attacks import craft
from uapgen.evaluation import evaluate, open_images
from uapgen.runtime import atomic_write, start_process
from uapgen.victims import load_victim

ARMS: dict[str, dict[str, Any]] = {
    "class-balancing GAN (effective frequency)": {},
    "class-balancing GAN, w = 1 (DeGAN)": {"effective": False},
    "GAN without regulariser": {"balance": 0.0},
    "no GAN: procedural images alone": {"gan": False},
}


@click.command()
@click.option("--victim", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Evaluation images.")
@click.option("--limit", type=int)
@click.option("--budget", default="quick", show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--skip", multiple=True, type=click.Choice(list(ARMS)), help="Leave an arm out; repeatable.")
@click.option("--threads", type=int)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    victim: str,
    weights: Path | None,
    data: str,
    limit: int | None,
    budget: str,
    seeds: str,
    skip: tuple[str, ...],
    threads: int | None,
    out: Path,
) -> None:
    start_process(threads)
    target = load_victim(victim, weights=weights)
    images = open_images(data, target.transform, num_classes=target.num_classes, limit=limit)
    out.mkdir(parents=True, exist_ok=True)
    cells = _read(out / "cells.jsonl")
    for seed in map(int, seeds.split(",")):
        for arm, params in ARMS.items():
            if arm not in skip and not any(cell["arm"] == arm and cell["seed"] == seed for cell in cells):
                cells.append(_cell(target, images, arm, params, budget, seed))
                with (out / "cells.jsonl").open("a") as file:
                    file.write(json.dumps(cells[-1]) + "\n")
                click.echo(json.dumps(cells[-1]))
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(_table(cells, victim, data, len(images)))
    click.echo((out / "table.md").read_text())


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _cell(target: Any, images: Any, arm: str, params: dict[str, Any], budget: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:  # the GAN's seed is the run's: its variance belongs into the table
        uap = craft(target, seed=seed, budget=budget, folder=Path(folder) / "run", gan_seed=seed, **params)
    result = evaluate(uap, target, images)
    row = result.rows[0]
    return {
        "arm": arm,
        "seed": seed,
        "budget": uap.card["method"]["budget"],
        "image_gradients": uap.card["cost"]["image_gradients"],
        "data_class": uap.data_class,
        "changed": row.fooling_rate.count,
        "n": row.n,
        "floor": result.noise[0].fooling_rate.count,
        "coverage": uap.card["method"].get("notes", {}).get("gan", {}).get("coverage"),
        "delta_sha256": uap.sha256,
        "victim": target.weights_sha256,
    }


def _table(cells: list[dict[str, Any]], victim: str, data: str, n: int) -> str:
    lines = [
        f"{victim}, eps 10/255, {cells[0]['budget']} image-gradients, {n} images of {Path(data).name}, 8-bit rounded; "
        f"random +-eps floor {100 * cells[0]['floor'] / cells[0]['n']:.1f}.",
        "",
        "| arm | fooling rate, mean ± std | per seed | classes hit of 256 | KL to uniform (nats) | confidence |",
        "|---|---|---|---|---|---|",
    ]
    for arm in [arm for arm in ARMS if any(cell["arm"] == arm for cell in cells)]:
        mine = sorted((cell for cell in cells if cell["arm"] == arm), key=lambda cell: cell["seed"])
        rates = [100 * cell["changed"] / cell["n"] for cell in mine]
        spread = (
            f"{statistics.mean(rates):.1f} ± {statistics.stdev(rates):.1f}" if len(rates) > 1 else f"{rates[0]:.1f}"
        )
        seen = [cell["coverage"] for cell in mine if cell["coverage"]]
        shown = [
            f"{statistics.mean(c[key] for c in seen):.{digits}f}" if seen else "-"
            for key, digits in (("classes", 0), ("kl_mean", 2), ("confidence", 2))
        ]
        lines.append(f"| {arm} | {spread} | {', '.join(f'{r:.1f}' for r in rates)} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
