"""The tables of README from what the commands wrote in results/.

python scripts/table.py evaluations results/*.json
python scripts/table.py across cbgan,psp-uap,fg-uap,sga results/compare-*/results.json
python scripts/table.py defended cbgan,sga,fg-uap,psp-uap results/defended/*.json
python scripts/table.py ladder cbgan results/ladder-squeezenet/results.json --without gan_from --without proxy_filter

Rates are in per cent; means are over seeds, ± the sample standard deviation.
"""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import click

from uapgen.tables import known_as, markdown_table, percent, spread

COLUMNS = (
    *("victim", "method", "data class", "image-gradients", "clean acc", "adv acc"),
    *("fooling rate [95% CI]", "floor", "n", "file"),
)
files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)


@click.group()
def main() -> None:
    """Tables from results of `uapgen evaluate` and `uapgen compare`."""


def _read(file: Path, key: str, kind: str) -> dict[str, Any]:
    result = json.loads(file.read_text())
    if not isinstance(result, dict) or not result.get(key):
        raise click.UsageError(f"{file} is no {kind}")
    return result


def _comparison(file: Path) -> dict[str, Any]:
    return _read(file, "crafted_on", "results.json of `uapgen compare`")


def _own_rows(result: dict[str, Any], victim: str) -> dict[str, dict[str, Any]]:
    """Rows by method, crafted and measured on `victim`."""
    return {row["method"]: row for row in result["rows"] if row["crafted_on"] == row["victim"] == victim}


@main.command()
@files_argument
def evaluations(files: tuple[Path, ...]) -> None:
    """A line for each row of results of `uapgen evaluate`."""
    click.echo(f"| {' | '.join(COLUMNS)} |")
    click.echo("|" + "---|" * len(COLUMNS))
    for file in files:
        result = _read(file, "uaps", "result of `uapgen evaluate`")
        for row in result["rows"]:
            click.echo(f"| {' | '.join(_evaluation(result, row, file))} |")


def _evaluation(result: dict[str, Any], row: dict[str, Any], file: Path) -> list[str]:
    card = result["uaps"][row["uap"]]["card"]
    low, high = row["fooling_rate"]["ci95"]
    names = ("clean_accuracy", "adversarial_accuracy", "fooling_rate", "noise_floor")
    rates = {name: row[name] and row[name]["rate"] for name in names}
    return [
        row["victim"] + ("" if row["white_box"] else " (transfer)"),
        card["method"]["name"],
        card["data"]["class"],
        str((card.get("cost") or {}).get("image_gradients", "-")),
        percent(rates["clean_accuracy"]),
        percent(rates["adversarial_accuracy"]),
        f"**{percent(rates['fooling_rate'])}** [{100 * low:.1f}, {100 * high:.1f}]",
        percent(rates["noise_floor"]),
        str(row["n"]),
        f"`{file.as_posix()}`",
    ]


@main.command()
@click.argument("methods")
@files_argument
def across(methods: str, files: tuple[Path, ...]) -> None:
    """METHODS, comma-separated, on several victims, from results.json of `uapgen compare`.

    A cell is the fooling rate on the victim that the pattern was crafted on; in parentheses the mean over the other
    victims that its run measured.
    """
    names = methods.split(",")
    results = [_comparison(file) for file in files]
    body = [_across(result, victim, names) for result in results for victim in result["crafted_on"]]
    click.echo(markdown_table(["victim", "image-gradients", "clean acc", "floor", *names], body, left=1))


def _across(result: dict[str, Any], crafted_on: str, names: list[str]) -> list[str]:
    victim, rows = result["victims"][crafted_on], _own_rows(result, crafted_on)
    about = [known_as(crafted_on, victim), str(result["budget"])]
    about += [percent(rate and rate["rate"]) for rate in (victim["clean_accuracy"], victim["floor"])]
    return [*about, *(_with_transfer(rows.get(name)) for name in names)]


def _with_transfer(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    transfer = "" if row["transfer"]["mean"] is None else f" ({100 * row['transfer']['mean']:.1f})"
    return spread([100 * rate for rate in row["rates"]], 1) + transfer


@main.command()
@click.argument("methods")
@files_argument
def defended(methods: str, files: tuple[Path, ...]) -> None:
    """METHODS, comma-separated, behind defences, from results of `uapgen evaluate --defence`.

    A cell is the fooling rate behind the defence (defended against defended predictions), the last column the random
    floor there.
    """
    names = methods.split(",")
    body = [line for file in files for line in _defended(file, names)]
    click.echo(markdown_table(["victim", "defence", *names, "floor"], body, left=2))


def _defended(file: Path, names: list[str]) -> list[list[str]]:
    result = _read(file, "defences", "result of `uapgen evaluate --defence`")
    rows = [{"defence": "none", **row} for row in result["rows"]] + result["defences"]
    lines = []
    for victim in result["victims"]:
        mine = [row for row in rows if row["victim"] == victim["name"]]
        for defence in dict.fromkeys(row["defence"] for row in mine):
            here = {row["method"]: row for row in mine if row["defence"] == defence}
            floors = [row["noise_floor"] for row in here.values()]
            rates = [here[name]["fooling_rate"] if name in here else None for name in names]
            about = known_as(victim["name"], victim)
            lines.append([about, defence, *(percent(rate and rate["rate"]) for rate in [*rates, floors[0]])])
    return lines


Rates = dict[str, dict[int, float]]  # by change and seed, in per cent; METHOD itself is the change ""


@main.command()
@click.argument("method")
@files_argument
@click.option("--without", multiple=True, metavar="KEY", help="Leave out changes of this parameter; repeatable.")
def ladder(method: str, files: tuple[Path, ...], without: tuple[str, ...]) -> None:
    """What a change of METHOD's parameters is worth, from results.json of `uapgen compare`.

    A line for each METHOD+KEY=VALUE, a column for each victim that was crafted on: the fooling rate, and how far it is
    from METHOD's on the seeds that both have, ± the standard error.
    """
    columns = [column for file in files for column in _ladder(file, method)]
    changes = sorted({change for _, rates in columns for change in rates if not _keys(change) & set(without)})
    body = [[f"`{change or method}`", *(_change_cell(change, rates) for _, rates in columns)] for change in changes]
    click.echo(markdown_table(["change", *(victim for victim, _ in columns)], body, left=1))


def _ladder(file: Path, method: str) -> list[tuple[str, Rates]]:
    result = _comparison(file)
    columns = []
    for victim in result["crafted_on"]:
        rows = _own_rows(result, victim)
        rates = {change: _by_seed(row) for name, row in rows.items() if (change := _change(name, method)) is not None}
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


def _change_cell(change: str, rates: Rates) -> str:
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
