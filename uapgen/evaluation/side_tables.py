"""The smaller tables under a perturbation's: behind defences, and attacks that see each image."""

from __future__ import annotations

from typing import Any

from .intervals import Rate
from .layout import align, percent

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
