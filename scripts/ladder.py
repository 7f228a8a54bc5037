"""What each parameter of a method is worth, from `uapgen compare` runs of METHOD and METHOD+KEY=VALUE at equal cost.

python scripts/ladder.py cbgan results/ladder-squeezenet/results.json --without gan_from --without proxy_filter
python scripts/ladder.py cbgan+gan_from=0 results/ladder-squeezenet/results.json

A line for each change, a column for each victim that was crafted on: the fooling rate in per cent, mean ± sample
standard deviation over seeds, and how far it is from METHOD's on the seeds that both have, ± the standard error.
"""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import click

from uapgen.tables import known_as, markdown_table, spread

Rates = dict[str, dict[int, float]]  # by change and seed, in per cent; METHOD itself is the change ""


@click.command()
@click.argument("method")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--without", multiple=True, metavar="KEY", help="Leave out changes of this parameter; repeatable.")
def main(method: str, files: tuple[Path, ...], without: tuple[str, ...]) -> None:
    """What a change of METHOD's parameters is worth, from the results.json of `uapgen compare` runs."""
    columns = [column for file in files for column in _columns(file, method)]
    changes = sorted({change for _, rates in columns for change in rates if not _keys(change) & set(without)})
    body = [[f"`{change or method}`", *(_cell(change, rates) for _, rates in columns)] for change in changes]
    click.echo(markdown_table(["change", *(victim for victim, _ in columns)], body, left=1))


def _columns(file: Path, method: str) -> list[tuple[str, Rates]]:
    result = json.loads(file.read_text())
    if not isinstance(result, dict) or "crafted_on" not in result:
        raise click.UsageError(f"{file} is no results.json of `uapgen compare`")
    columns = []
    for victim in result["crafted_on"]:
        rows = [row for row in result["rows"] if row["crafted_on"] == row["victim"] == victim]
        rates = {name: _by_seed(row) for row in rows if (name := _change(row["method"], method)) is not None}
        if "" not in rates:
            raise click.UsageError(f"{file} has no row of {method} on {victim}, with which to compare")
        columns.append((known_as(victim, result["victims"][victim]), rates))
    return columns


def _change(name: str, method: str) -> str | None:
    """What `name` has beyond METHOD, which may have parameters of its own; None where it lacks one of them."""
    parts, base = name.split("+"), method.split("+")
    return "+".join(part for part in parts if part not in base) if set(base) <= set(parts) else None


def _keys(change: str) -> set[str]:
    return {part.partition("=")[0] for part in change.split("+")}


def _by_seed(row: dict[str, Any]) -> dict[int, float]:
    return {seed: 100 * rate for seed, rate in zip(row["seeds"], row["rates"], strict=True)}


def _cell(change: str, rates: Rates) -> str:
    if change not in rates:
        return "-"
    mine, base = rates[change], rates[""]
    shown = spread(list(mine.values()), 1)
    apart = [mine[seed] - base[seed] for seed in mine if seed in base]
    if not change or not apart:
        return shown
    error = f" ± {statistics.stdev(apart) / math.sqrt(len(apart)):.1f}" if len(apart) > 1 else ""
    return f"{shown} ({statistics.fmean(apart):+.1f}{error})"


if __name__ == "__main__":
    main()
