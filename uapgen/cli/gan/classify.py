"""uapgen gan classify: classifiers trained on generated images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from ..options import say

if TYPE_CHECKING:
    from ...longtail.synthetic.plan import Plan


@click.command("classify")
@click.option("--preset", "preset_name", metavar="NAME", help="A plan of the package: digits (minutes), cifar10 (GPU).")
@click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="A plan of your own, as TOML.")
@click.option("--uap", "uap_files", multiple=True, metavar="FILE", type=click.Path(path_type=Path), help="Repeatable.")
@click.option("--seeds", metavar="0..2|0,1,2", help="Instead of the plan's.")
@click.option("--root", metavar="DIR", help="Where the data lie, instead of the plan's.")
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Seeds at a time.  [default: cores; GPU: 1]")
@click.option("--restart", is_flag=True, help="Discard what RUN holds.")
@click.option("--no-figures", is_flag=True, help="Do not draw features.png and weights.png.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of training."
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads, where seeds run one by one.")
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="RUN")
def command(
    preset_name: str | None,
    config: Path | None,
    uap_files: tuple[Path, ...],
    seeds: str | None,
    root: str | None,
    workers: int | None,
    restart: bool,
    no_figures: bool,
    device: str,
    precision: str,
    threads: int | None,
    out: Path,
) -> None:
    """Train GANs, then classifiers on what they generate, and test these on real images.

    The plan asks for combinations of fixed or fresh images, transformations, a classifier as filter and truncated
    latents; for ensembles of GANs, independent or trained on what the others missed; all beside a classifier trained
    on real data. With --uap, how each classifier fares under a universal perturbation. RUN holds everything: table.md
    (also printed), seedN/rows.jsonl, features.png, weights.png. The same command again continues.

    \b
    uapgen gan classify --preset digits -o run
    uapgen gan classify --preset digits -o run --uap uap.safetensors
    uapgen gan classify --config plan.toml --root ~/data --seeds 0..4 -o run
    """
    plan = _plan(preset_name, config, seeds, root)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("gan classify runs without torchrun; --workers runs seeds beside each other")
    from ...longtail.synthetic.run import collect, default_workers, run_plan
    from ...longtail.synthetic.table import render
    from ...perturbation import Perturbation
    from ...runtime import atomic_write, ensure_writable, resolve_device, start_process

    uaps = [Perturbation.load(path) for path in uap_files]
    where = resolve_device(device)
    ensure_writable(out / "table.md")
    start_process(threads)
    count = default_workers(where, len(plan.seeds)) if workers is None else workers
    try:
        run_plan(plan, out, uaps=uaps, device=device, precision=precision, workers=count, restart=restart, say=say)
    finally:
        if (out / "options.json").is_file():
            with atomic_write(out / "table.md") as temporary:
                temporary.write_text(render(plan, collect(plan, out)))
    if not no_figures:
        from ...longtail.synthetic.figures import draw_figures

        for path in draw_figures(plan, out, device=device, precision=precision):
            say(f"wrote {path}")
    click.echo((out / "table.md").read_text(), nl=False)


def _plan(name: str | None, config: Path | None, seeds: str | None, root: str | None) -> Plan:
    if (name is None) == (config is None):
        raise UsageError("give either --preset NAME or --config FILE")
    import dataclasses

    from ...compare.plan import parse_seeds
    from ...longtail.synthetic.plan import load_plan, preset

    plan = load_plan(config) if config is not None else preset(str(name))
    numbers = tuple(parse_seeds(seeds)) if seeds else plan.seeds
    return dataclasses.replace(plan, seeds=numbers, root=root or plan.root)
