"""uapgen gan gold: the gap of log-densities against its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import say
from .options import chosen_jobs, chosen_plan, chosen_seeds, plan_options


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
def command(seeds: str | None, parts: tuple[str, ...], **options: Any) -> None:
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
