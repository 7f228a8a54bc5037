"""Rows of text as columns, rates as per cents, Markdown tables that also read as plain text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in per cent; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


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


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], left: int) -> str:
    """Padded, so that it also reads as plain text; the first `left` columns to the left, numbers to the right."""
    widths = [max(3, *(len(line[i]) for line in [head, *body])) for i in range(len(head))]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = [
        " | ".join(cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in pairs)
        for pairs in (list(enumerate(zip(line, widths, strict=True))) for line in [head, rule, *body])
    ]
    return "\n".join(f"| {line} |" for line in lines)


def spread(values: Sequence[float], digits: int) -> str:
    """`71.2 ± 0.8`, mean and sample standard deviation; the value alone where there is one, and a dash for none."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
