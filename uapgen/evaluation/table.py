"""An evaluation as a document, and the document as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..images.labels import class_name
from ..perturbation import Perturbation
from ..perturbation.card import KIND_WORDS, UNKNOWN_CLASS, BudgetFacts
from ..tables import align, percent
from .document import (
    EVALUATION,
    ClassEntry,
    DefendedEntry,
    EvaluationDocument,
    PatternEntry,
    ReferenceEntry,
    RowEntry,
    VictimEntry,
)
from .intervals import Rate, value_of
from .results import Evaluation, Row, find_floor

COLUMNS = (
    "victim",
    "clean acc",
    "adv acc",
    "fooling rate [95% CI]",
    "success|correct",
    "noise floor",
    "top adv classes",
)
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


def document(
    uaps: Sequence[Perturbation],
    files: Sequence[str | Path],
    evaluations: Sequence[Evaluation],
    *,
    data: str,
    command: str | None = None,
    complete: bool = True,
) -> EvaluationDocument:
    """The document `uapgen.evaluation/1`; `to_json` of uapgen.schema writes it.

    `files` says where each of `uaps` came from; `evaluations` is one for each victim, of all `uaps`. `complete` is
    false while victims are still to come.
    """
    names = [str(file) for file in files]
    return EvaluationDocument(
        schema=EVALUATION,
        uapgen=__version__,
        command=command,
        complete=complete,
        data=data,
        quantized=all(evaluation.quantized for evaluation in evaluations),
        seed=evaluations[0].seed if evaluations else None,
        uaps=tuple(PatternEntry(name, uap.sha256, uap.facts) for name, uap in zip(names, uaps, strict=True)),
        victims=tuple(_victim(evaluation) for evaluation in evaluations),
        rows=tuple(_row(row, e, i, names[i]) for e in evaluations for i, row in enumerate(e.rows)),
        noise_floor=tuple(_row(row, e) for e in evaluations for row in e.noise),
        defences=tuple(entry for e in evaluations for entry in _defended(e, names)),
        per_image=tuple(
            ReferenceEntry(_row(r.row, e, r.uap, names[r.uap] if r.uap is not None else None), r.steps)
            for e in evaluations
            for r in e.references
        ),
        warnings=tuple(dict.fromkeys(text for evaluation in evaluations for text in evaluation.warnings)),
    )


def _victim(evaluation: Evaluation) -> VictimEntry:
    about = evaluation.victim
    h, w = about.input_size[1:]
    return VictimEntry(
        about=about,
        transform=f"{about.interpolation}, crop {about.crop_pct} {about.crop_mode}, {h}x{w}",
        n=evaluation.n,
        clean_accuracy=evaluation.clean_accuracy,
        data=evaluation.data,
        environment=evaluation.environment,
        seconds=round(evaluation.seconds, 3),
        warnings=tuple(evaluation.warnings),
    )


def _row(row: Row, evaluation: Evaluation, index: int | None = None, file: str | None = None) -> RowEntry:
    return _entry(row, evaluation, evaluation.clean_accuracy, evaluation.floor(row), index, file)


def _defended(evaluation: Evaluation, files: Sequence[str]) -> list[DefendedEntry]:
    entries = []
    for held in evaluation.defended:
        for index, (row, undefended) in enumerate(zip(held.rows, held.undefended, strict=True)):
            floor = find_floor(held.noise, row)
            counted = _entry(row, evaluation, held.clean_accuracy, floor, index, files[index])
            entries.append(DefendedEntry(held.name, counted, undefended, held.changed))
    return entries


def _entry(
    row: Row, evaluation: Evaluation, accuracy: Rate | None, floor: Row | None, index: int | None, file: str | None
) -> RowEntry:
    classes = evaluation.victim.num_classes
    targeted = row.targeted or (None, None)
    return RowEntry(
        uap=index,
        file=file,
        method=row.method,
        norm=row.norm,
        eps=row.eps,
        eps_255=round(row.eps * 255, 6),
        victim=evaluation.victim.name,
        victim_weights_sha256=evaluation.victim.weights_sha256,
        white_box=row.white_box,
        n=row.n,
        fooling_rate=row.fooling_rate,
        clean_accuracy=accuracy,
        adversarial_accuracy=row.adversarial_accuracy,
        success_on_correct=row.success_on_correct,
        targeted=targeted[0],
        targeted_excluding_class=targeted[1],
        noise_floor=floor.fooling_rate if floor else None,
        dominant_classes=tuple(
            ClassEntry(number, class_name(number, classes), Rate(count, row.n)) for number, count in row.dominant()
        ),
    )


def render(result: EvaluationDocument) -> str:
    """A document as text: for each perturbation its header and a row per victim, the matrix of both, the warnings."""
    blocks = []
    for index, uap in enumerate(result.uaps):
        rows = [row for row in result.rows if row.uap == index]
        if rows:
            lines = [*_header(uap, result), *align([COLUMNS, *map(_cells, rows)])]
            lines += _defence_lines(result, index) + _reference_lines(result, index, uap.card.budget)
            blocks.append("\n".join(lines))
    if matrix := _transfer_lines(result):
        blocks.append("\n".join(matrix))
    notes = ["* crafted on this victim (white box)"] if any(row.white_box for row in result.rows) else []
    notes += [f"! {text}" for text in result.warnings]
    return "\n\n".join(blocks) + ("\n\n" + "\n".join(notes) if notes else "") + "\n"


def _header(uap: PatternEntry, result: EvaluationDocument) -> list[str]:
    card, budget = uap.card, uap.card.budget
    bound = f"{budget.eps * 255:.4g}/255" if budget.norm == "linf" else f"{budget.eps:.4g}"
    crafted = f", crafted on {card.victim.name}" if card.victim and card.victim.name else ""
    n = " or ".join(str(count) for count in sorted({victim.n for victim in result.victims}))
    rounding = "8-bit rounded" if result.quantized else "not rounded"
    kind = KIND_WORDS.get(str(card.data.kind), KIND_WORDS[UNKNOWN_CLASS])
    return [
        f"UAP {uap.file}  {card.method.name}, {kind}, {budget.norm} {bound}{crafted}",
        f"data {result.data}  n={n}  {rounding}",
    ]


def _cells(row: RowEntry) -> tuple[str, ...]:
    dominant = ", ".join(f"{entry.name} {percent(entry.rate.value, 0)}%" for entry in row.dominant_classes[:3])
    targeted = f"; target {percent(row.targeted.value)}%" if row.targeted else ""
    return (
        row.victim + (" *" if row.white_box else ""),
        percent(value_of(row.clean_accuracy)),
        percent(value_of(row.adversarial_accuracy)),
        str(row.fooling_rate),
        percent(value_of(row.success_on_correct)),
        percent(value_of(row.noise_floor)),
        dominant + targeted,
    )


def _transfer_lines(result: EvaluationDocument) -> list[str]:
    """Fooling rates in per cent, a line for each perturbation and a column for each victim; empty for one of either."""
    victims = [victim.about.key for victim in result.victims]
    if len(victims) < 2 or len(result.uaps) < 2:
        return []
    rates = {(row.uap, row.victim_key): row for row in result.rows}
    # The empty last column is what `align` sets to the left.
    head = ("transfer, fooling rates in %", *(name for name, _ in victims), "")
    rows = [
        (uap.file, *(_transfer(rates.get((index, victim))) for victim in victims), "")
        for index, uap in enumerate(result.uaps)
    ]
    return align([head, *rows])


def _transfer(row: RowEntry | None) -> str:
    return "-" if row is None else percent(row.fooling_rate.value) + ("*" if row.white_box else " ")


def _defence_lines(result: EvaluationDocument, uap: int) -> list[str]:
    """The table of perturbation number `uap` behind each defence; empty without defences."""
    cells = [
        (
            entry.defence,
            percent(value_of(entry.row.clean_accuracy)),
            percent(value_of(entry.moved_by_defence)),
            percent(value_of(entry.row.adversarial_accuracy)),
            str(entry.row.fooling_rate),
            percent(value_of(entry.fooling_rate_vs_undefended)),
            percent(value_of(entry.row.noise_floor)),
            entry.row.victim,
        )
        for entry in result.defences
        if entry.row.uap == uap
    ]
    return align([DEFENCE_COLUMNS, *cells]) if cells else []


def _reference_lines(result: EvaluationDocument, uap: int, budget: BudgetFacts) -> list[str]:
    """The attacks that started at perturbation number `uap`, or at no perturbation but have its bound."""
    cells = []
    for entry in result.per_image:
        row, steps = entry.row, f", {entry.steps} steps" if entry.steps else ""
        if row.uap == uap or (row.uap is None and (row.norm, row.eps) == (budget.norm, budget.eps)):
            title = f"{row.method}{' from this pattern' if row.uap is not None else ''}{steps}"
            cells.append((title, percent(value_of(row.adversarial_accuracy)), str(row.fooling_rate), row.victim))
    return align([REFERENCE_COLUMNS, *cells]) if cells else []
