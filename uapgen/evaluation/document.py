"""Results read back from files: what a gate or a report may rely on, and nothing that the counts do not say."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..errors import UapgenError
from .intervals import Rate

LARGEST = sys.float_info.max  # an integer beyond it has no float
EVALUATION, COMPARISON = "uapgen.evaluation/1", "uapgen.comparison/1"
METRICS = (
    "fooling_rate",
    "clean_accuracy",
    "adversarial_accuracy",
    "success_on_correct",
    "targeted",
    "targeted_excluding_class",
    "noise_floor",
)


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
    """A results file: its rows, and the JSON document itself for whoever needs more."""

    path: Path
    rows: list[StoredRow]
    complete: bool
    command: str | None
    document: dict[str, Any]

    @property
    def schema(self) -> str:
        return str(self.document["schema"])


def load_results(path: str | Path) -> StoredResults:
    """The results of `uapgen evaluate --json`, or a comparison's results.json (or the folder that holds it).

    Rates are counted anew from count and n. Raises UapgenError, naming `path`, for a file that is missing, no JSON,
    of another schema, that holds NaN or infinity, or whose rates do not follow from their counts.
    """
    path = Path(path)
    file = path / "results.json" if path.is_dir() else path
    return read_results(_read_document(file), file)


def read_results(document: dict[str, Any], file: str | Path = "results") -> StoredResults:
    """`load_results` of a document that is in memory already; `file` names it in errors."""
    file = Path(file)
    schema = document.get("schema")
    if schema not in (EVALUATION, COMPARISON):
        raise UapgenError(
            f"{file} has schema {schema!r}; uapgen {__version__} reads {EVALUATION!r} and {COMPARISON!r}: "
            "run the evaluation again with this version"
        )
    try:
        rows = _evaluation_rows(document) if schema == EVALUATION else _comparison_rows(document)
        complete, command = document["complete"] is True, document.get("command")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UapgenError(f"{file} is not a whole {schema} file ({reason}); run the evaluation again") from error
    if not rows:
        raise UapgenError(f"{file} holds no row: nothing was measured; run the evaluation to its end")
    return StoredResults(file, rows, complete, command if isinstance(command, str) else None, document)


def _read_document(file: Path) -> dict[str, Any]:
    if not file.is_file():
        hint = "; expected results.json in it" if file.name == "results.json" else ""
        raise UapgenError(f"{file} is {'a folder' if file.is_dir() else 'not there'}{hint}; give a results file")
    try:
        document = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:  # a UnicodeDecodeError and a JSONDecodeError are ValueErrors
        raise UapgenError(f"{file} cannot be read as results ({error}); expected JSON of uapgen evaluate") from error
    if not isinstance(document, dict):
        raise UapgenError(f"{file} holds a JSON {type(document).__name__}; expected the object that evaluate writes")
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no result: a count or a rate was lost")


def all_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an evaluation, plain ones first, then those behind a defence, which have its name in `defence`."""
    return [*document["rows"], *(row for row in document.get("defences", ()) if row["defence"] != "none")]


def _evaluation_rows(document: dict[str, Any]) -> list[StoredRow]:
    images = {(v["name"], v["weights_sha256"]): str(v["data"]["list_sha256"]) for v in document["victims"]}
    rows = []
    for row in all_rows(document):
        uap = document["uaps"][row["uap"]]
        rates = {name: _rate(name, row[name]) for name in METRICS if row.get(name) is not None}
        rows.append(
            StoredRow(
                method=str(row["method"]),
                victim=str(row["victim"]),
                norm=str(row["norm"]),
                eps_255=_number("eps_255", row["eps_255"]),
                defence=str(row.get("defence") or "none"),
                sha256=str(uap["sha256"]),
                images=images[row["victim"], row["victim_weights_sha256"]],
                seed=uap["card"].get("seed"),
                white_box=row["white_box"] is True,
                rates=_with_fooling(rates),
            )
        )
    return rows


def _comparison_rows(document: dict[str, Any]) -> list[StoredRow]:
    names = {"noise_floor": "floor"}
    rows = []
    for cell in document["cells"]:
        held = {name: cell.get(names.get(name, name)) for name in METRICS}
        rows.append(
            StoredRow(
                method=str(cell["method"]),
                victim=str(cell["victim"]),
                norm=str(document["norm"]),
                eps_255=_number("eps_255", document["eps_255"]),
                defence=str(cell.get("defence") or "none"),
                sha256=str(cell["sha256"]),
                images=str(document["data"]["sha256"]),
                seed=cell["seed"],
                white_box=cell["white_box"] is True,
                rates=_with_fooling({name: _rate(name, rate) for name, rate in held.items() if rate is not None}),
            )
        )
    return rows


def _with_fooling(rates: dict[str, Rate]) -> dict[str, Rate]:
    if "fooling_rate" not in rates:
        raise ValueError("a row without fooling_rate")
    return rates


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        raise ValueError(f"{name} is {value!r}")
    return float(value)


def _rate(name: str, held: Any) -> Rate:
    """The counts; raises ValueError where they are no counts, or where the rate beside them is not theirs."""
    count, n, stated = held["count"], held["n"], held["rate"]
    if any(isinstance(value, bool) or not isinstance(value, int) for value in (count, n)) or not 0 <= count <= n:
        raise ValueError(f"{name} counts {count!r} of {n!r}")
    rate = Rate(count, n)
    if (rate.value is None) != (stated is None) or (rate.value is not None and abs(rate.value - stated) > 1e-9):
        raise ValueError(f"{name} is stated as {stated!r}, and {count} of {n} is {rate.value!r}: the file was changed")
    return rate
