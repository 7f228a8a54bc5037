"""Methods behind defences in one table, from `uapgen evaluate --defence`.

python scripts/defended.py cbgan,sga,fg-uap,psp-uap results/defended/*.json

A cell is the fooling rate in per cent behind the defence (defended against defended predictions), the last column the
random floor there.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from uapgen.tables import known_as, markdown_table, percent


@click.command()
@click.argument("methods")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(methods: str, files: tuple[Path, ...]) -> None:
    """METHODS, comma-separated, from results of `uapgen evaluate --defence`."""
    names = methods.split(",")
    body = [line for file in files for line in _lines(file, names)]
    click.echo(markdown_table(["victim", "defence", *names, "floor"], body, left=2))


def _lines(file: Path, names: list[str]) -> list[list[str]]:
    result = json.loads(file.read_text())
    if not isinstance(result, dict) or not result.get("defences"):
        raise click.UsageError(f"{file} is no result of `uapgen evaluate --defence`")
    rows = [{"defence": "none", **row} for row in result["rows"]] + result["defences"]
    lines = []
    for victim in result["victims"]:
        about = known_as(victim["name"], victim)
        mine = [row for row in rows if row["victim"] == victim["name"]]
        for defence in dict.fromkeys(row["defence"] for row in mine):
            here = {row["method"]: row for row in mine if row["defence"] == defence}
            floors = [row["noise_floor"] for row in here.values()]
            rates = [here[name]["fooling_rate"] if name in here else None for name in names]
            lines.append([about, defence, *(percent(rate) for rate in [*rates, floors[0]])])
    return lines


if __name__ == "__main__":
    main()
