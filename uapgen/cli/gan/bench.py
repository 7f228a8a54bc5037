"""uapgen gan bench"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from ..options import device_options, say


@click.command("bench")
@click.argument("plan", required=False, type=click.Path(path_type=Path), metavar="[PLAN.toml]")
@click.option("--preset", metavar="NAME", help="A packaged plan: digits, cifar10-lt, fashion-mnist-lt, ...")
@click.option("--show", is_flag=True, help="Print the plan's TOML and stop; a start for your own.")
@click.option("--data", metavar="SPEC", help="In place of the plan's data.")
@click.option("--test", metavar="PATH", help="The test part, where the data is a path.")
@click.option(
    "--annotator", type=click.Path(path_type=Path), metavar="FILE", help="In place of one that is trained in RUN."
)
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the set's files lie.")
@click.option("--inception", type=click.Path(path_type=Path), metavar="FILE", help="Weights of FID's network.")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="GANs at a time.  [default: one a CPU core; one on a GPU]"
)
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="RUN", help="Everything: table, figures, GANs.")
@device_options
def command(
    plan: Path | None,
    preset: str | None,
    show: bool,
    data: str | None,
    test: str | None,
    annotator: Path | None,
    data_root: Path | None,
    inception: Path | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Train and score every GAN of a plan: dataset x imbalance x method x seed.

    RUN holds table.md, results.json, the classes that each method makes (classes-*.png), sheets of samples ordered by
    class, and the GANs. A finished GAN is a line in cells.jsonl; the same command goes on from there.

    \b
    uapgen gan bench --preset digits -o digits
    uapgen gan bench --preset digits --show > mine.toml
    """
    from ...longtail.bench_plan import find_preset, load_plan

    if (plan is None) == (preset is None):
        raise UsageError("give a PLAN.toml or --preset NAME, one of them")
    file = find_preset(preset) if preset else plan
    assert file is not None
    held = load_plan(file)
    if show:
        click.echo(file.read_text(), nl=False)
        return
    if out is None:
        raise UsageError("-o RUN is missing: where shall table, figures and GANs go?")

    import torch

    from ...longtail.bench import Bench
    from ...longtail.bench_report import write_report
    from ...runtime import ensure_writable, start_process

    start_process(options["threads"])
    ensure_writable(out / "table.md")
    held = dataclasses.replace(held, data=data or held.data, test=test or held.test)
    bench = Bench(
        held,
        out,
        root=data_root,
        annotator=annotator,
        inception=inception,
        device=options["device"],
        say=say,
    )
    jobs = options["jobs"] or (torch.get_num_threads() if bench.device.type == "cpu" else 1)
    click.echo(write_report(held, bench.run(jobs), out), nl=False)
    say(f"table and figures in {out}")
