"""The report of a comparison as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..markdown import markdown_table

NOTES = """\
Fooling rate: share of the n images whose top-1 class changes, in per cent, mean over the seeds; ± is the sample
standard deviation over seeds. 95% CI: Wilson's interval of that mean at n images; all seeds see the same images, so it
stands for the draw of images and knows nothing of seeds. Floor: one random sign pattern of the same bound. Transfer:
mean over the other victims. Seconds: wall time of crafting on this machine, mean over seeds. Below 28: share of the
pattern's power below 28 cycles per image (white noise of 224 pixels: 4.9). Within a data class, rows are sorted by
fooling rate. Data class: `none` saw no image, `proxy` images of another domain, `driven` images of the victim's
domain, `unknown` is an imported file, which was not crafted here."""

HEAD = (
    "method",
    "data class",
    "fooling rate",
    "95% CI",
    "floor",
    "transfer",
    "image-gradients",
    "seconds",
    "below 28",
    "seeds",
    "n",
)


def render(result: dict[str, Any]) -> str:
    """results.json as Markdown: a table for each crafted victim, the transfer matrix, notes and warnings."""
    parts = [_title(result)]
    for name in result["crafted_on"]:
        rows = [row for row in result["rows"] if row["victim"] == name]
        parts += [f"## {name}{_accuracy(result, name)}", _table(rows)]
    if len(result["transfer"]["victims"]) > 1:
        parts += [
            "## Transfer: crafted (rows), measured (columns; bold: the crafted victim)",
            _matrix(result["transfer"]),
        ]
    parts += [NOTES]
    parts += ["\n".join(f"- failed: {entry['title']}: {entry['error']}" for entry in result["failed"])]
    parts += ["\n".join(f"- {text}" for text in result["warnings"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(result: dict[str, Any]) -> str:
    bound = f"{result['norm']} {result['eps'] * 255:.4g}/255"
    data = f"{result['data']['images']} images of {result['data']['path']}"
    state = "" if result["complete"] else "; not complete"
    return f"# Comparison: {bound}, {result['budget']} image-gradients, {data}, 8-bit rounded{state}"


def _accuracy(result: dict[str, Any], name: str) -> str:
    found = result["victims"][name]["clean_accuracy"]
    return f" (clean accuracy {percent(found['rate'])})" if found else ""


def _table(rows: Sequence[dict[str, Any]]) -> str:
    targeted = any(row["targeted"] is not None for row in rows)
    head = [*HEAD, "to target"] if targeted else list(HEAD)
    return markdown_table(
        head, [[*_cells(row), *([percent(row["targeted"])] if targeted else [])] for row in rows], left=2
    )


def _cells(row: dict[str, Any]) -> list[str]:
    rate = row["fooling_rate"]
    spread = f" ± {percent(rate['std'])}" if rate["std"] is not None else ""
    low, high = rate["ci95"]
    imported = row["crafted_on"] is None
    return [
        f"`{row['method']}`",
        row["data_class"],
        f"**{percent(rate['mean'])}**{spread}",
        f"[{percent(low)}, {percent(high)}]",
        percent(row["floor"]),
        percent(row["transfer"]["mean"]),
        _number(row["image_gradients"]),
        "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
        percent(row["below_28"]),
        "-" if imported else str(len(row["seeds"])),
        str(row["n"]),
    ]


def _matrix(transfer: dict[str, Any]) -> str:
    head = ["method", "crafted on", *transfer["victims"]]
    body = []
    for row in transfer["rows"]:
        rates = dict(zip(transfer["victims"], map(percent, row["rates"]), strict=True))
        shown = [f"**{rate}**" if name == row["crafted_on"] else rate for name, rate in rates.items()]
        body.append([f"`{row['method']}`", row["crafted_on"] or "-", *shown])
    return markdown_table(head, body, left=2)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
