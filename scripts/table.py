"""The tables of README from the evaluation files in results/: python scripts/table.py results/*.json"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from uapgen.tables import percent

COLUMNS = [
    "victim",
    "method",
    "data class",
    "image-gradients",
    "clean acc",
    "adv acc",
    "fooling rate [95% CI]",
    "floor",
    "n",
    "file",
]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    click.echo(f"| {' | '.join(COLUMNS)} |")
    click.echo("|" + "---|" * len(COLUMNS))
    for file in files:
        result = json.loads(file.read_text())
        if not isinstance(result, dict) or "uaps" not in result:
            raise click.UsageError(f"{file} is no result of `uapgen evaluate`")
        for row in result["rows"]:
            click.echo(_line(result, row, file))


def _line(result: dict[str, Any], row: dict[str, Any], file: Path) -> str:
    card = result["uaps"][row["uap"]]["card"]
    low, high = row["fooling_rate"]["ci95"]
    cells = [
        row["victim"] + ("" if row["white_box"] else " (transfer)"),
        card["method"]["name"],
        card["data"]["class"],
        str((card.get("cost") or {}).get("image_gradients", "-")),
        percent(row["clean_accuracy"]),
        percent(row["adversarial_accuracy"]),
        f"**{percent(row['fooling_rate'])}** [{100 * low:.1f}, {100 * high:.1f}]",
        percent(row["noise_floor"]),
        str(row["n"]),
        f"`{file.as_posix()}`",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
