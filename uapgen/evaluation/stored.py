"""Results read back from files: what a gate or a report may rely on, and nothing that the counts do not say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from .. import __version__
from ..errors import UapgenError
from ..perturbation.card import OPEN
from ..schema import make
from .comparison import COMPARISON, Comparison
from .document import EVALUATION, EvaluationDocument
from .intervals import Rate

Metric = Literal[
    "fooling_rate",
    "clean_accuracy",
    "adversarial_accuracy",
    "success_on_correct",
    "targeted",
    "targeted_excluding_class",
    "noise_floor",
]
METRICS: tuple[str, ...] = get_args(Metric)


@dataclass(frozen=True)
class StoredRow:
    """One perturbation on one victim as a file has it; `rates` lacks what was not measured (no labels, no target)."""

    method: str
    victim: str
    norm: str
    eps_255: float
    defence: str
    sha256: str
    images: str
    seed: int | None
    white_box: bool
    rates: Mapping[str, Rate]

    @property
    def key(self) -> tuple[str, str, str, float, str]:
        """What makes two rows of two files comparable: victim, method, norm, eps in levels of 255, defence."""
        return self.victim, self.method, self.norm, self.eps_255, self.defence

    def __str__(self) -> str:
        seed = f" seed {self.seed}" if self.seed is not None else ""
        defence = f" behind {self.defence}" if self.defence != "none" else ""
        return f"{self.method}{seed} on {self.victim}{defence}, {self.norm} {self.eps_255:.4g}/255"


@dataclass(frozen=True)
class StoredResults:
    """A results file: its rows, and the document itself for whoever needs more."""

    path: Path
    rows: Sequence[StoredRow]
    document: EvaluationDocument | Comparison

    @property
    def complete(self) -> bool:
        return self.document.complete

    @property
    def command(self) -> str | None:
        return self.document.command


def load_results(path: str | Path) -> StoredResults:
    """The results of `uapgen evaluate --json`, or a comparison's results.json (or the folder that holds it).

    Rates are counted anew from count and n. Raises UapgenError, naming `path`, for a file that is missing, no JSON,
    of another schema, that holds NaN or infinity, or whose rates do not follow from their counts.
    """
    path = Path(path)
    file = path / "results.json" if path.is_dir() else path
    return read_results(_read_json(file), file)


def read_results(table: dict[str, Any], file: str | Path = "results") -> StoredResults:
    """`load_results` of JSON that is in memory already; `file` names it in errors."""
    kinds: dict[Any, type[EvaluationDocument] | type[Comparison]]
    kinds = {EVALUATION: EvaluationDocument, COMPARISON: Comparison}
    schema = str(table.get("schema"))
    if schema not in kinds:
        raise UapgenError(
            f"{file} has schema {schema!r}; uapgen {__version__} reads {EVALUATION!r} and {COMPARISON!r}: "
            "run the evaluation again with this version"
        )
    try:
        document = make(kinds[schema], table, "results", rules=OPEN)
    except UapgenError as error:
        raise UapgenError(f"{file} is not a whole {schema} file ({error}); run the evaluation again") from error
    return stored(document, file)


def stored(document: EvaluationDocument | Comparison, file: str | Path = "results") -> StoredResults:
    """A document with its rows in the form that both kinds share; raises UapgenError for one without rows."""
    rows = _evaluation_rows(document) if isinstance(document, EvaluationDocument) else _comparison_rows(document)
    if not rows:
        raise UapgenError(f"{file} holds no row: nothing was measured; run the evaluation to its end")
    return StoredResults(Path(file), rows, document)


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        hint = "; expected results.json in it" if file.name == "results.json" else ""
        raise UapgenError(f"{file} is {'a folder' if file.is_dir() else 'not there'}{hint}; give a results file")
    try:
        table = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:  # a UnicodeDecodeError and a JSONDecodeError are ValueErrors
        raise UapgenError(f"{file} cannot be read as results ({error}); expected JSON of uapgen evaluate") from error
    if not isinstance(table, dict):
        raise UapgenError(f"{file} holds a JSON {type(table).__name__}; expected the object that evaluate writes")
    return table


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no result: a count or a rate was lost")


def _evaluation_rows(document: EvaluationDocument) -> list[StoredRow]:
    return [
        StoredRow(
            method=row.method,
            victim=row.victim,
            norm=row.norm,
            eps_255=row.eps_255,
            defence=defence,
            sha256=document.pattern(row).sha256,
            images=document.victim(row).data.list_sha256,
            seed=document.pattern(row).card.seed,
            white_box=row.white_box,
            rates={name: rate for name in METRICS if (rate := getattr(row, name)) is not None},
        )
        for defence, row in document.all_rows()
    ]


def _comparison_rows(document: Comparison) -> list[StoredRow]:
    rows = []
    for cell in document.cells:
        held = {
            "fooling_rate": cell.fooling_rate,
            "clean_accuracy": cell.clean_accuracy,
            "adversarial_accuracy": cell.adversarial_accuracy,
            "targeted": cell.targeted,
            "noise_floor": cell.floor,
        }
        rows.append(
            StoredRow(
                method=cell.method,
                victim=cell.victim,
                norm=document.norm,
                eps_255=document.eps_255,
                defence="none",
                sha256=cell.sha256,
                images=document.data.sha256,
                seed=cell.seed,
                white_box=cell.white_box,
                rates={name: rate for name, rate in held.items() if rate is not None},
            )
        )
    return rows
