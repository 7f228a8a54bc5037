"""The smaller tables under a perturbation's: behind defences, and attacks that see each image."""

from __future__ import annotations

from typing import Any

from ..tables import align, percent
from .intervals import Rate

DEFENCE_COLUMNS = (
    "behind a defence",
    "own acc",
    "moved by defence",
    "adv acc",
    "fooling rate [95% CI]",
    "vs undefended",
    "noise floor",
    "victim",
)
REFERENCE_COLUMNS = ("per image", "adv acc", "fooling rate [95% CI]", "victim")


def transfer_lines(result: dict[str, Any]) -> list[str]:
    """Fooling rates in per cent, a line for each perturbation and a column for each victim; empty for one of either."""
    victims = [(victim["name"], victim["weights_sha256"]) for victim in result["victims"]]
    if len(victims) < 2 or len(result["uaps"]) < 2:
        return []
    rates = {(row["uap"], row["victim"], row["victim_weights_sha256"]): row for row in result["rows"]}
    # The empty last column is what `align` sets to the left.
    head = ("transfer, fooling rates in %", *(name for name, _ in victims), "")
    rows = [
        (str(uap["file"]), *(_transfer(rates.get((index, *victim))) for victim in victims), "")
        for index, uap in enumerate(result["uaps"])
    ]
    return align([head, *rows])


def _transfer(row: dict[str, Any] | None) -> str:
    return "-" if row is None else percent(row["fooling_rate"]) + ("*" if row["white_box"] else " ")


def defence_lines(result: dict[str, Any], uap: int) -> list[str]:
    """The table of perturbation number `uap` behind each defence; empty without defences, as in older documents."""
    rows = [row for row in result.get("defences", []) if row["uap"] == uap]
    cells = [
        (
            row["defence"],
            percent(row["clean_accuracy"]),
            percent(row["moved_by_defence"]),
            percent(row["adversarial_accuracy"]),
            _interval(row),
            percent(row["fooling_rate_vs_undefended"]),
            percent(row["noise_floor"]),
            row["victim"],
        )
        for row in rows
    ]
    return align([DEFENCE_COLUMNS, *cells]) if cells else []


def reference_lines(result: dict[str, Any], uap: int, budget: dict[str, Any]) -> list[str]:
    """The attacks that started at perturbation number `uap`, or at no perturbation but have its bound."""
    bound = budget["norm"], budget["eps"]
    cells = [
        (_title(row), percent(row["adversarial_accuracy"]), _interval(row), row["victim"])
        for row in result.get("per_image", [])
        if row["uap"] == uap or (row["uap"] is None and (row["norm"], row["eps"]) == bound)
    ]
    return align([REFERENCE_COLUMNS, *cells]) if cells else []


def _title(row: dict[str, Any]) -> str:
    steps = f", {row['steps']} steps" if row["steps"] else ""
    return f"{row['method']}{' from this pattern' if row['uap'] is not None else ''}{steps}"


def _interval(row: dict[str, Any]) -> str:
    return str(Rate(row["fooling_rate"]["count"], row["fooling_rate"]["n"]))
