"""uapgen gan bench"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ..options import say
from .options import chosen_jobs, chosen_plan, plan_options


@click.command("bench")
@plan_options
@click.option("--data", metavar="SPEC", help="In place of the plan's data.")
@click.option("--test", metavar="PATH", help="The test part, where the data is a path.")
@click.option(
    "--annotator", type=click.Path(path_type=Path), metavar="FILE", help="In place of one that is trained in RUN."
)
@click.option("--inception", type=click.Path(path_type=Path), metavar="FILE", help="Weights of FID's network.")
def command(data: str | None, test: str | None, **options: Any) -> None:
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
    from ...longtail.bench.run import lines_of, run_bench
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
