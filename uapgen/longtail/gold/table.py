"""The records of an experiment as a Markdown table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

HEAD = "| part | row | labels | fitting capacity, % | seeds |\n|---|---|---:|---:|---:|\n"


def markdown(records: list[dict[str, Any]]) -> str:
    """One line a row: mean and sample standard deviation over seeds, in per cent. Validation checks are left out."""
    rows: dict[tuple[str, str, int | None], list[float]] = defaultdict(list)
    for record in records:
        if record["check"] is None:
            rows[record["part"], record["row"], record["labels"]].append(100 * record["value"])
    lines = []
    for (part, row, labels), values in sorted(rows.items(), key=lambda item: _order(list(rows), item[0])):
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        shown = "" if labels is None else labels
        lines.append(f"| {part} | {row} | {shown} | {statistics.mean(values):.2f}{spread} | {len(values)} |\n")
    return HEAD + "".join(lines)


def _order(rows: list[tuple[str, str, int | None]], row: tuple[str, str, int | None]) -> tuple[int, int, int]:
    """Parts as they came first, active learning by labels, rows as they came first."""
    parts = list(dict.fromkeys(part for part, _, _ in rows))
    return parts.index(row[0]), row[2] or 0, rows.index(row)
