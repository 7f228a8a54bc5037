"""The result as one JSON document, and the document as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..images.labels import class_name
from ..perturbation import Perturbation
from ..tables import align, percent
from .intervals import Rate
from .results import Evaluation, Row, find_floor
from .side_tables import defence_lines, reference_lines, transfer_lines

SCHEMA = "uapgen.evaluation/1"
DATA_WORDS = {"none": "data-free", "proxy": "proxy data", "driven": "data-driven"}
COLUMNS = (
    "victim",
    "clean acc",
    "adv acc",
    "fooling rate [95% CI]",
    "success|correct",
    "noise floor",
    "top adv classes",
)


def document(
    uaps: Sequence[Perturbation],
    files: Sequence[str],
    evaluations: Sequence[Evaluation],
    *,
    data: str,
    command: str | None = None,
    complete: bool = True,
) -> dict[str, Any]:
    """The JSON document `uapgen.evaluation/1`.

    `files` says where each of `uaps` came from; `evaluations` is one for each victim, of all `uaps`. Rates are in
    [0,1] and stand beside their counts. `complete` is false while victims are still to come.
    """
    return {
        "schema": SCHEMA,
        "uapgen": __version__,
        "command": command,
        "complete": complete,
        "data": data,
        "quantized": all(evaluation.quantized for evaluation in evaluations),
        "seed": evaluations[0].seed if evaluations else None,
        "uaps": [{"file": file, "sha256": uap.sha256, "card": uap.card} for file, uap in zip(files, uaps, strict=True)],
        "victims": [_victim_json(evaluation) for evaluation in evaluations],
        "rows": [_row_json(row, e, i, files[i]) for e in evaluations for i, row in enumerate(e.rows)],
        "noise_floor": [_row_json(row, e) for e in evaluations for row in e.noise],
        "defences": [entry for e in evaluations for entry in _defences_json(e, files)],
        "per_image": [
            {**_row_json(r.row, e, r.uap, files[r.uap] if r.uap is not None else None), "steps": r.steps}
            for e in evaluations
            for r in e.references
        ],
        "warnings": list(dict.fromkeys(text for evaluation in evaluations for text in evaluation.warnings)),
    }


def _victim_json(evaluation: Evaluation) -> dict[str, Any]:
    p = evaluation.victim
    h, w = p["input_size"][1:]
    return {
        **p,
        "transform": f"{p['interpolation']}, crop {p['crop_pct']} {p['crop_mode']}, {h}x{w}",
        "n": evaluation.n,
        "clean_accuracy": _rate_json(evaluation.clean_accuracy),
        "data": evaluation.data,
        "environment": evaluation.environment,
        "seconds": round(evaluation.seconds, 3),
        "warnings": evaluation.warnings,
    }


def _row_json(row: Row, evaluation: Evaluation, index: int | None = None, file: str | None = None) -> dict[str, Any]:
    floor = evaluation.floor(row)
    return _counts_json(row, evaluation, evaluation.clean_accuracy, floor, index, file)


def _defences_json(evaluation: Evaluation, files: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the same shape as those without a defence, with the defence's name and its own two figures."""
    return [
        {
            "defence": defended.name,
            **_counts_json(
                row, evaluation, defended.clean_accuracy, find_floor(defended.noise, row), index, files[index]
            ),
            "fooling_rate_vs_undefended": _rate_json(undefended),
            "moved_by_defence": _rate_json(defended.changed),
        }
        for defended in evaluation.defended
        for index, (row, undefended) in enumerate(zip(defended.rows, defended.undefended, strict=True))
    ]


def _counts_json(
    row: Row, evaluation: Evaluation, accuracy: Rate | None, floor: Row | None, index: int | None, file: str | None
) -> dict[str, Any]:
    classes = evaluation.victim["num_classes"]
    targeted = row.targeted or (None, None)
    return {
        "uap": index,
        "file": file,
        "method": row.method,
        "norm": row.norm,
        "eps": row.eps,
        "eps_255": round(row.eps * 255, 6),
        "victim": evaluation.victim["name"],
        "victim_weights_sha256": evaluation.victim["weights_sha256"],
        "white_box": row.white_box,
        "n": row.n,
        "fooling_rate": _rate_json(row.fooling_rate),
        "clean_accuracy": _rate_json(accuracy),
        "adversarial_accuracy": _rate_json(row.adversarial_accuracy),
        "success_on_correct": _rate_json(row.success_on_correct),
        "targeted": _rate_json(targeted[0]),
        "targeted_excluding_class": _rate_json(targeted[1]),
        "noise_floor": _rate_json(floor.fooling_rate if floor else None),
        "dominant_classes": [
            {"class": index, "name": class_name(index, classes), **Rate(count, row.n).to_json()}
            for index, count in row.dominant()
        ],
    }


def _rate_json(rate: Rate | None) -> dict[str, Any] | None:
    return rate.to_json() if rate is not None else None


def render(result: dict[str, Any]) -> str:
    """A document as text: for each perturbation its header and a row per victim, the matrix of both, the warnings."""
    blocks = []
    for index, uap in enumerate(result["uaps"]):
        rows = [row for row in result["rows"] if row["uap"] == index]
        if rows:
            lines = [*_header(uap, result), *align([COLUMNS, *map(_cells, rows)])]
            lines += defence_lines(result, index) + reference_lines(result, index, uap["card"]["budget"])
            blocks.append("\n".join(lines))
    if matrix := transfer_lines(result):
        blocks.append("\n".join(matrix))
    notes = ["* crafted on this victim (white box)"] if any(row["white_box"] for row in result["rows"]) else []
    notes += [f"! {text}" for text in result["warnings"]]
    return "\n\n".join(blocks) + ("\n\n" + "\n".join(notes) if notes else "") + "\n"


def _header(uap: dict[str, Any], result: dict[str, Any]) -> list[str]:
    card = uap["card"]
    kind = DATA_WORDS.get(card["data"].get("class"), "unknown data")
    budget = f"{card['budget']['norm']} {_levels(card['budget'])}"
    origin = (card.get("victim") or {}).get("name")
    crafted = f", crafted on {origin}" if origin else ""
    counts = sorted({victim["n"] for victim in result["victims"]})
    n = " or ".join(str(count) for count in counts)
    rounding = "8-bit rounded" if result["quantized"] else "not rounded"
    return [
        f"UAP {uap['file']}  {card['method']['name']}, {kind}, {budget}{crafted}",
        f"data {result['data']}  n={n}  {rounding}",
    ]


def _levels(budget: dict[str, Any]) -> str:
    return f"{budget['eps'] * 255:.4g}/255" if budget["norm"] == "linf" else f"{budget['eps']:.4g}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    dominant = ", ".join(f"{entry['name']} {percent(entry, 0)}%" for entry in row["dominant_classes"][:3])
    targeted = f"; target {percent(row['targeted'])}%" if row["targeted"] else ""
    return (
        row["victim"] + (" *" if row["white_box"] else ""),
        percent(row["clean_accuracy"]),
        percent(row["adversarial_accuracy"]),
        str(Rate(row["fooling_rate"]["count"], row["fooling_rate"]["n"])),
        percent(row["success_on_correct"]),
        percent(row["noise_floor"]),
        dominant + targeted,
    )
