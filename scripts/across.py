"""Methods on several victims in one table, from `uapgen compare`.

python scripts/across.py cbgan,psp-uap,fg-uap,sga results/compare-*/results.json

A cell is the fooling rate in per cent on the victim that the pattern was crafted on, mean ± sample standard deviation
over seeds; in parentheses the mean over the other victims that its run measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from uapgen.tables import known_as, markdown_table, percent, spread


@click.command()
@click.argument("methods")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(methods: str, files: tuple[Path, ...]) -> None:
    """METHODS, comma-separated, from the results.json of `uapgen compare` runs."""
    names = methods.split(",")
    results = [_comparison(file) for file in files]
    body = [_line(result, victim, names) for result in results for victim in result["crafted_on"]]
    click.echo(markdown_table(["victim", "image-gradients", "clean acc", "floor", *names], body, left=1))


def _comparison(file: Path) -> dict[str, Any]:
    result = json.loads(file.read_text())
    if not isinstance(result, dict) or "crafted_on" not in result:
        raise click.UsageError(f"{file} is no results.json of `uapgen compare`")
    return result


def _line(result: dict[str, Any], crafted_on: str, names: list[str]) -> list[str]:
    victim = result["victims"][crafted_on]
    rows = {row["method"]: row for row in result["rows"] if row["crafted_on"] == row["victim"] == crafted_on}
    about = [known_as(crafted_on, victim), str(result["budget"])]
    about += [percent(rate) for rate in (victim["clean_accuracy"], victim["floor"])]
    return [*about, *(_cell(rows.get(name)) for name in names)]


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    transfer = "" if row["transfer"]["mean"] is None else f" ({100 * row['transfer']['mean']:.1f})"
    return spread([100 * rate for rate in row["rates"]], 1) + transfer


if __name__ == "__main__":
    main()
