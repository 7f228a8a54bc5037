"""From cells to rows: means over seeds, intervals, transfer. Pure arithmetic on what cells.jsonl holds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from ..card import DATA_CLASSES, UNKNOWN_CLASS
from ..evaluation.intervals import wilson

CLASSES = (*DATA_CLASSES, UNKNOWN_CLASS)
Cell = dict[str, Any]


def rows_of(cells: Sequence[Cell], victim: str) -> list[dict[str, Any]]:
    """A row for each method crafted on `victim`, measured there, and for each imported file; rates are in [0,1].

    Ordered by data class, and by falling fooling rate in each. `fooling_rate` holds the mean over seeds, the sample
    standard deviation (None for one seed) and Wilson's 95% interval of the mean as of `n` images: every seed sees the
    same images, so that more seeds do not narrow it. `transfer` is the mean over the other victims.
    """
    mine = [cell for cell in cells if cell["crafted_on"] in (victim, None)]
    rows = [
        _row(label, [cell for cell in mine if cell["method"] == label], victim)
        for label in dict.fromkeys(cell["method"] for cell in mine if cell["victim"] == victim)
    ]
    return sorted(rows, key=lambda row: (CLASSES.index(row["data_class"]), -row["fooling_rate"]["mean"]))


def _row(label: str, cells: Sequence[Cell], victim: str) -> dict[str, Any]:
    here = sorted((cell for cell in cells if cell["victim"] == victim), key=lambda cell: cell["seed"] or 0)
    rates = [cell["fooling_rate"]["rate"] for cell in here]
    mean, n = statistics.mean(rates), here[0]["n"]
    others = dict.fromkeys(cell["victim"] for cell in cells if cell["victim"] != victim)
    transfer = {name: _mean_rate(cells, name) for name in others}
    return {
        "method": label,
        "victim": victim,
        "crafted_on": here[0]["crafted_on"],
        "data_class": here[0]["data_class"],
        "seeds": [cell["seed"] for cell in here],
        "rates": rates,
        "n": n,
        "fooling_rate": {
            "mean": mean,
            "std": statistics.stdev(rates) if len(rates) > 1 else None,
            "ci95": list(wilson(round(mean * n), n)),
        },
        "floor": here[0]["floor"]["rate"],
        "targeted": mean_of(cell["targeted"]["rate"] for cell in here if cell["targeted"]),
        "transfer": {"mean": mean_of(transfer.values()), "victims": transfer},
        "image_gradients": mean_of(cell["image_gradients"] for cell in here),
        "seconds": mean_of(cell["seconds"] for cell in here),
        "below_28": mean_of(cell["below_28"] for cell in here),
    }


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _mean_rate(cells: Sequence[Cell], victim: str) -> float | None:
    return mean_of(cell["fooling_rate"]["rate"] for cell in cells if cell["victim"] == victim)


def transfer_matrix(cells: Sequence[Cell], rows: Sequence[dict[str, Any]], victims: Sequence[str]) -> dict[str, Any]:
    """Row i is what was crafted (`rows[i]`: method, and on which victim), column j where it was measured (`victims`).

    Entries are fooling rates in [0,1], means over seeds; None where nothing was measured.
    """
    matrix = []
    for row in rows:
        mine = [cell for cell in cells if (cell["method"], cell["crafted_on"]) == (row["method"], row["crafted_on"])]
        rates = [_mean_rate(mine, victim) for victim in victims]
        matrix.append({"method": row["method"], "crafted_on": row["crafted_on"], "rates": rates})
    return {"victims": list(victims), "rows": matrix}


def curves_of(lines: Sequence[Cell], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The last curve of each perturbation, with its method, data class and seed; rates in [0,1]."""
    known = {cell["uap"]: cell for cell in cells}
    last = {line["uap"]: line for line in lines if line["uap"] in known}
    return [
        {
            "uap": key,
            "victim": line["victim"],
            "n": line["points"][-1]["n"],
            **{name: known[key][name] for name in ("method", "seed", "data_class")},
            "image_gradients": [point["image_gradients"] for point in line["points"]],
            "rates": [point["changed"] / point["n"] for point in line["points"]],
        }
        for key, line in last.items()
    ]
