"""Rows of text as columns, rates as per cents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def percent(rate: dict[str, Any] | None, digits: int = 1) -> str:
    """A rate of a JSON document in per cent; "-" where there is none."""
    return "-" if rate is None or rate["rate"] is None else f"{100 * rate['rate']:.{digits}f}"


def known_as(victim: str, about: dict[str, Any]) -> str:
    """A victim's name in a table over several: its file where weights are local, which need not be the spec's own."""
    return str(about["weights_source"]) if about["weights"] == "file" else victim


def align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns two spaces apart: numbers to the right, the first and the last column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
