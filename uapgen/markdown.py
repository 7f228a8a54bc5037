"""Tables that also read as plain text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


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
