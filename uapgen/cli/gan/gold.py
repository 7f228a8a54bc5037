"""uapgen gan gold: the gap of log-densities against its baselines."""

from __future__ import annotations

from pathlib import Path

import click

from ..options import say


@click.command("gold")
@click.option(
    "--preset",
    required=True,
    metavar="NAME|FILE.toml",
    help="blobs, digits; with local data mnist, fashion-mnist, svhn, cifar10, stl10, lsun; or a plan of yours.",
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="RUN")
@click.option("--root", metavar="DIR", help="Where the data set's files lie.")
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="Seeds 0 to N-1; default the plan's.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["reweighting", "rejection", "active"]),
    help="Only this part; repeatable.",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads for torch.")
def command(
    preset: str,
    out: Path,
    root: str | None,
    seeds: int | None,
    parts: tuple[str, ...],
    device: str,
    threads: int | None,
) -> None:
    """Measure GOLD's three uses by fitting capacity: the accuracy on real images of a classifier trained on samples.

    Rows: re-weighted training against plain; rejection sampling at each percentile against none; active learning by the
    gap of log-densities against random queries. Each with every seed, a line of RUN/results.jsonl; RUN/table.md and
    stdout have means and standard deviations. An interrupted run goes on when the same command is run again.

    \b
    uapgen gan gold --preset digits -o runs/gold-digits
    uapgen gan gold --preset svhn --root data --device cuda:0 -o runs/gold-svhn
    """
    from ...longtail.gold import find_plan, markdown, run
    from ...longtail.gold.experiment import PARTS
    from ...runtime import atomic_write, ensure_writable, start_process

    plan = find_plan(preset)
    ensure_writable(out / "table.md")
    start_process(threads)
    records = run(plan, out, root=root, seeds=seeds, parts=parts or PARTS, device=device, say=say)
    text = markdown(records)
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(text)
    click.echo(text, nl=False)
