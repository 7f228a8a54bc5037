"""uapgen gan classify: classifiers trained on generated images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from ..options import say
from .options import chosen_jobs, chosen_plan, chosen_seeds, plan_options


@click.command("classify")
@plan_options
@click.option("--seeds", metavar="0..2|0,1,2", help="Instead of the plan's.")
@click.option("--uap", "uap_files", multiple=True, metavar="FILE", type=click.Path(path_type=Path), help="Repeatable.")
@click.option("--restart", is_flag=True, help="Discard what RUN holds.")
@click.option("--no-figures", is_flag=True, help="Do not draw features.png and weights.png.")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of training."
)
def command(
    seeds: str | None, uap_files: tuple[Path, ...], restart: bool, no_figures: bool, precision: str, **options: Any
) -> None:
    """Train GANs, then classifiers on what they generate, and test these on real images.

    The plan asks for combinations of fixed or fresh images, transformations, a classifier as filter and truncated
    latents; for ensembles of GANs, independent or trained on what the others missed; all beside a classifier trained
    on real data. With --uap, how each classifier fares under a universal perturbation. RUN holds everything: table.md
    (also printed), seedN/rows.jsonl, features.png, weights.png. The same command again continues. Jobs are seeds.

    \b
    uapgen gan classify --preset digits -o run
    uapgen gan classify --preset digits -o run --uap uap.safetensors
    uapgen gan classify plan.toml --data-root ~/data --seeds 0..4 -o run
    """
    from ...longtail.synthetic.plan import SyntheticPlan

    plan = chosen_plan(SyntheticPlan, options)
    if plan is None:
        return
    from ... import distributed

    if distributed.started() > 1:
        raise UsageError("gan classify runs without torchrun; --jobs runs seeds beside each other")
    from ...longtail.synthetic.run import collect, run_plan
    from ...longtail.synthetic.table import render
    from ...perturbation import Perturbation
    from ...runtime import atomic_write, ensure_writable, start_process

    plan, out, device = chosen_seeds(plan, seeds), Path(options["out"]), options["device"]
    if options["data_root"]:
        plan = dataclasses.replace(plan, root=str(options["data_root"]))
    uaps = [Perturbation.load(path) for path in uap_files]
    ensure_writable(out / "table.md")
    start_process(options["threads"])
    jobs = chosen_jobs(options)

    def write() -> None:
        with atomic_write(out / "table.md") as temporary:
            temporary.write_text(render(plan, collect(plan, out)))

    try:
        done = run_plan(plan, out, uaps=uaps, device=device, precision=precision, jobs=jobs, restart=restart, say=say)
    except KeyboardInterrupt:
        write()
        raise
    write()
    done.check()
    if not no_figures:
        from ...longtail.synthetic.figures import draw_figures

        for path in draw_figures(plan, out, device=device, precision=precision):
            say(f"wrote {path}")
    click.echo((out / "table.md").read_text(), nl=False)
