"""From cells to rows (means over seeds, intervals, transfer), and rows as a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from ..evaluation.comparison import (
    CellEntry,
    Comparison,
    CurveEntry,
    CurveLine,
    MethodRow,
    OthersEntry,
    SeedsEntry,
    Transfer,
    TransferRow,
)
from ..evaluation.intervals import value_of, wilson
from ..perturbation.card import DATA_CLASSES, UNKNOWN_CLASS
from ..tables import markdown_table, percent

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


def render(result: Comparison) -> str:
    """results.json as Markdown: a table for each crafted victim, the transfer matrix, notes and warnings."""
    parts = [_title(result)]
    for name in result.crafted_on:
        parts += [f"## {name}{_accuracy(result, name)}", _table(result.rows_of(name))]
    if len(result.transfer.victims) > 1:
        parts += [
            "## Transfer: crafted (rows), measured (columns; bold: the crafted victim)",
            _matrix(result.transfer),
        ]
    parts += [NOTES]
    parts += ["\n".join(f"- failed: {entry.title}: {entry.error}" for entry in result.failed)]
    parts += ["\n".join(f"- {text}" for text in result.warnings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(result: Comparison) -> str:
    bound = f"{result.norm} {result.eps * 255:.4g}/255"
    data = f"{result.data.images} images of {result.data.path}"
    state = "" if result.complete else "; not complete"
    return f"# Comparison: {bound}, {result.budget} image-gradients, {data}, 8-bit rounded{state}"


def _accuracy(result: Comparison, name: str) -> str:
    found = result.victims[name].clean_accuracy
    return f" (clean accuracy {percent(found.value)})" if found else ""


def _table(rows: Sequence[MethodRow]) -> str:
    targeted = any(row.targeted is not None for row in rows)
    head = [*HEAD, "to target"] if targeted else list(HEAD)
    return markdown_table(
        head, [[*_cells(row), *([percent(row.targeted)] if targeted else [])] for row in rows], left=2
    )


def _cells(row: MethodRow) -> list[str]:
    rate = row.fooling_rate
    spread = f" ± {percent(rate.std)}" if rate.std is not None else ""
    low, high = rate.ci95
    imported = row.crafted_on is None
    return [
        f"`{row.method}`",
        row.data_class,
        f"**{percent(rate.mean)}**{spread}",
        f"[{percent(low)}, {percent(high)}]",
        percent(row.floor),
        percent(row.transfer.mean),
        _number(row.image_gradients),
        "-" if row.seconds is None else f"{row.seconds:.1f}",
        percent(row.below_28),
        "-" if imported else str(len(row.seeds)),
        str(row.n),
    ]


def _matrix(transfer: Transfer) -> str:
    head = ["method", "crafted on", *transfer.victims]
    body = []
    for row in transfer.rows:
        rates = dict(zip(transfer.victims, map(percent, row.rates), strict=True))
        shown = [f"**{rate}**" if name == row.crafted_on else rate for name, rate in rates.items()]
        body.append([f"`{row.method}`", row.crafted_on or "-", *shown])
    return markdown_table(head, body, left=2)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


CLASSES = (*DATA_CLASSES, UNKNOWN_CLASS)


def rows_of(cells: Sequence[CellEntry], victim: str) -> list[MethodRow]:
    """A row for each method crafted on `victim`, measured there, and for each imported file; rates are in [0,1].

    Ordered by data class, and by falling fooling rate in each. `fooling_rate` holds the mean over seeds, the sample
    standard deviation (None for one seed) and Wilson's 95% interval of the mean as of `n` images: every seed sees the
    same images, so that more seeds do not narrow it. `transfer` is the mean over the other victims.
    """
    mine = [cell for cell in cells if cell.crafted_on in (victim, None)]
    rows = [
        _row(label, [cell for cell in mine if cell.method == label], victim)
        for label in dict.fromkeys(cell.method for cell in mine if cell.victim == victim)
    ]
    return sorted(rows, key=lambda row: (CLASSES.index(row.data_class), -row.fooling_rate.mean))


def _row(label: str, cells: Sequence[CellEntry], victim: str) -> MethodRow:
    here = sorted((cell for cell in cells if cell.victim == victim), key=lambda cell: cell.seed or 0)
    rates = tuple(cell.fooling_rate.value or 0.0 for cell in here)
    mean, n = statistics.mean(rates), here[0].n
    others = dict.fromkeys(cell.victim for cell in cells if cell.victim != victim)
    transfer = {name: _mean_rate(cells, name) for name in others}
    spread = statistics.stdev(rates) if len(rates) > 1 else None
    return MethodRow(
        method=label,
        victim=victim,
        crafted_on=here[0].crafted_on,
        data_class=here[0].data_class,
        seeds=tuple(cell.seed for cell in here),
        rates=rates,
        n=n,
        fooling_rate=SeedsEntry(mean, spread, wilson(round(mean * n), n)),
        floor=value_of(here[0].floor),
        targeted=mean_of(cell.targeted.value for cell in here if cell.targeted),
        transfer=OthersEntry(mean_of(transfer.values()), transfer),
        image_gradients=mean_of(cell.image_gradients for cell in here),
        seconds=mean_of(cell.seconds for cell in here),
        below_28=mean_of(cell.below_28 for cell in here),
    )


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _mean_rate(cells: Sequence[CellEntry], victim: str) -> float | None:
    return mean_of(cell.fooling_rate.value for cell in cells if cell.victim == victim)


def transfer_matrix(cells: Sequence[CellEntry], rows: Sequence[MethodRow], victims: Sequence[str]) -> Transfer:
    """Row i is what was crafted (`rows[i]`: method, and on which victim), column j where it was measured (`victims`).

    Entries are fooling rates in [0,1], means over seeds; None where nothing was measured.
    """
    matrix = []
    for row in rows:
        mine = [cell for cell in cells if (cell.method, cell.crafted_on) == (row.method, row.crafted_on)]
        rates = tuple(_mean_rate(mine, victim) for victim in victims)
        matrix.append(TransferRow(row.method, row.crafted_on, rates))
    return Transfer(tuple(victims), tuple(matrix))


def curves_of(lines: Sequence[CurveLine], cells: Sequence[CellEntry]) -> list[CurveEntry]:
    """The last curve of each perturbation, with its method, data class and seed; rates in [0,1]."""
    known = {cell.uap: cell for cell in cells}
    last = {line.uap: line for line in lines if line.uap in known}
    return [
        CurveEntry(
            uap=key,
            victim=line.victim,
            n=line.points[-1].n,
            method=known[key].method,
            seed=known[key].seed,
            data_class=known[key].data_class,
            image_gradients=tuple(point.image_gradients for point in line.points),
            rates=tuple(point.changed / point.n for point in line.points),
        )
        for key, line in last.items()
    ]
