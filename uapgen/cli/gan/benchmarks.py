"""`uapgen gan bench`, `gan gold`, `gan classify`: experiments from plans."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from ..options import say
from .options import chosen_jobs, chosen_plan, chosen_seeds, plan_options


@click.command("bench")
@plan_options
@click.option("--data", metavar="SPEC", help="In place of the plan's data.")
@click.option("--test", metavar="PATH", help="The test part, where the data is a path.")
@click.option(
    "--annotator", type=click.Path(path_type=Path), metavar="FILE", help="In place of one that is trained in RUN."
)
@click.option("--inception", type=click.Path(path_type=Path), metavar="FILE", help="Weights of FID's network.")
def bench_command(data: str | None, test: str | None, **options: Any) -> None:
    """Train and score every GAN of a plan: dataset x imbalance x method x seed.

    RUN holds table.md (also printed), results.json, the classes that each method makes (classes-*.png), sheets of
    samples ordered by class, and the GANs. A finished GAN is a line in cells.jsonl; the same command goes on there.

    \b
    uapgen gan bench --preset digits -o digits
    uapgen gan bench --preset digits --show > mine.toml
    uapgen gan bench mine.toml -o mine
    """
    from ...longtail.bench.plan import BenchPlan

    plan = chosen_plan(BenchPlan, options)
    if plan is None:
        return
    from ...longtail.bench import lines_of, run_bench
    from ...longtail.bench.table import write_report
    from ...runtime import ensure_writable, start_process

    out: Path = options["out"]
    start_process(options["threads"])
    ensure_writable(out / "table.md")
    plan = dataclasses.replace(plan, data=data or plan.data, test=test or plan.test)
    done = run_bench(
        plan,
        out,
        root=options["data_root"],
        annotator=options["annotator"],
        inception=options["inception"],
        device=options["device"],
        jobs=chosen_jobs(options),
        say=say,
    )
    click.echo(write_report(plan, lines_of(plan, done), out), nl=False)
    say(f"table and figures in {out}")
    done.check()


@click.command("gold")
@plan_options
@click.option("--seeds", metavar="0..2|0,1,2", help="Instead of the plan's.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["reweighting", "rejection", "active"]),
    help="Only this part; repeatable.",
)
def gold_command(seeds: str | None, parts: tuple[str, ...], **options: Any) -> None:
    """Measure GOLD's three uses by fitting capacity: the accuracy on real images of a classifier trained on samples.

    Rows: re-weighted training against plain; rejection sampling at each percentile against none; active learning by the
    gap of log-densities against random queries. Each with every seed, a line of RUN/results.jsonl; RUN/table.md and
    stdout have means and standard deviations. An interrupted run goes on when the same command is run again.

    \b
    uapgen gan gold --preset digits -o runs/gold-digits
    uapgen gan gold --preset svhn --data-root data --device cuda:0 -o runs/gold-svhn
    uapgen gan gold mine.toml --seeds 0..9 -o runs/mine
    """
    from ...longtail.gold.plan import GoldPlan

    plan = chosen_plan(GoldPlan, options)
    if plan is None:
        return
    from ...longtail.gold import markdown, results_of, run
    from ...longtail.gold.experiment import PARTS
    from ...runtime import atomic_write, ensure_writable, start_process

    plan, out = chosen_seeds(plan, seeds), Path(options["out"])
    ensure_writable(out / "table.md")
    start_process(options["threads"])
    done = run(
        plan,
        out,
        root=options["data_root"],
        parts=parts or PARTS,
        device=options["device"],
        jobs=chosen_jobs(options),
        say=say,
    )
    text = markdown(results_of(done))
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(text)
    click.echo(text, nl=False)
    done.check()


@click.command("classify")
@plan_options
@click.option("--seeds", metavar="0..2|0,1,2", help="Instead of the plan's.")
@click.option("--uap", "uap_files", multiple=True, metavar="FILE", type=click.Path(path_type=Path), help="Repeatable.")
@click.option("--restart", is_flag=True, help="Discard what RUN holds.")
@click.option("--no-figures", is_flag=True, help="Do not draw features.png and weights.png.")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of training."
)
def classify_command(
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
        from ...longtail.synthetic.table import draw_figures

        for path in draw_figures(plan, out, device=device, precision=precision):
            say(f"wrote {path}")
    click.echo((out / "table.md").read_text(), nl=False)
