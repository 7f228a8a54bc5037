"""What a comparison leaves: results.json, table.md and the figures, all from its folder alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..evaluation.comparison import (
    COMPARISON,
    CellEntry,
    ComparedVictim,
    Comparison,
    CurveLine,
    FailedLine,
    FailedPart,
    FolderEntry,
    SpectrumEntry,
)
from ..experiments.cells import Record, failed
from ..perturbation import Perturbation
from ..perturbation.card import OPEN
from ..perturbation.picture import low_share, radial_spectrum
from ..runtime import atomic_write
from ..schema import make, to_json
from .store import Store
from .table import curves_of, render, rows_of, transfer_matrix


def write_report(
    store: Store,
    options: dict[str, Any],
    *,
    command: str | None = None,
    complete: bool = False,
    figures: bool = False,
) -> Comparison:
    """Writes results.json and table.md, with `figures` also the four .png files; returns the content of the first.

    `options` are those of `Store.settle`. Everything in the folder is reported, also what earlier calls put there.
    """
    lines = store.cells.read()
    cells = _current(store, lines)
    names = list(options["victims"])
    crafted_on = [name for name in names if any(cell.crafted_on == name for cell in cells)]
    places = crafted_on or names[:1]
    rows = [row for name in places for row in rows_of(cells, name)]
    sources = [row for row in rows if row.crafted_on or row.victim == places[0]]  # an import is one source
    curves = [make(CurveLine, line, str(store.curves.path), rules=OPEN) for line in store.curves.read()]
    train_data = options["train_data"]
    result = Comparison(
        schema=COMPARISON,
        uapgen=__version__,
        command=command,
        complete=complete,
        eps=options["eps"],
        norm=options["norm"],
        budget=options["budget"],
        data=make(FolderEntry, options["data"], "data", rules=OPEN),
        train_data=make(FolderEntry, train_data, "train_data", rules=OPEN) if train_data else None,
        eps_255=round(options["eps"] * 255, 6),
        quantized=True,
        victims={name: _measured(options["victims"][name], cells, name) for name in names},
        crafted_on=tuple(places),
        rows=tuple(rows),
        transfer=transfer_matrix(cells, sources, names),
        curves=tuple(curves_of(curves, cells)),
        spectra=tuple(_spectra(store, cells, places[0])),
        failed=tuple(_failures(store, lines, cells, curves)),
        warnings=tuple(dict.fromkeys(text for cell in cells for text in cell.warnings)),
        cells=tuple(cells),
    )
    with atomic_write(store.path / "results.json") as temporary:
        temporary.write_text(as_text(result))
    with atomic_write(store.path / "table.md") as temporary:
        temporary.write_text(render(result))
    if figures:
        from .figures import draw_all

        draw_all(result, store)
    return result


def as_text(result: Comparison) -> str:
    """JSON with one line for each entry of each list: a file that people can read and diff."""

    def text(value: Any) -> str:
        lines = isinstance(value, list) and value and isinstance(value[0], dict)
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if lines else json.dumps(value)

    entries = to_json(result).items()
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {text(value)}" for key, value in entries) + "\n}\n"


def _current(store: Store, lines: Sequence[Record]) -> list[CellEntry]:
    """The last cell of each perturbation on each victim, without those whose perturbation was removed."""
    read = (make(CellEntry, line, str(store.cells.path), rules=OPEN) for line in lines if not failed(line))
    last = {(cell.uap, cell.victim): cell for cell in read}
    return [cell for cell in last.values() if store.uap(cell.uap).is_file()]


def _failures(
    store: Store, lines: Sequence[Record], cells: Sequence[CellEntry], curves: Sequence[CurveLine]
) -> list[FailedPart]:
    """What failed and was not made good since, each part of a perturbation once."""
    done = {("cell", cell.uap, cell.victim) for cell in cells} | {("curve", line.uap, None) for line in curves}
    found: dict[tuple[str, str, str | None], FailedPart] = {}
    for line in filter(failed, lines):
        entry = make(FailedLine, line, str(store.cells.path), rules=OPEN)
        key = entry.part, entry.what.uap, entry.victim if entry.part == "cell" else None
        if key not in done and not (entry.part == "craft" and store.uap(entry.what.uap).is_file()):
            found[key] = entry.what
    return list(found.values())


def _measured(about: dict[str, Any], cells: Sequence[CellEntry], name: str) -> ComparedVictim:
    cell = next((cell for cell in cells if cell.victim == name), None)
    found = {"n": cell.n, "floor": cell.floor, "clean_accuracy": cell.clean_accuracy} if cell else {}
    return make(ComparedVictim, {**about, **to_json(found)}, f"victim {name}", rules=OPEN)


def _spectra(store: Store, cells: Sequence[CellEntry], victim: str) -> list[SpectrumEntry]:
    """Of the first seed's patterns crafted on `victim`, and of imported ones."""
    mine = [cell for cell in cells if cell.crafted_on in (victim, None) and cell.victim == victim]
    first = {cell.method: cell for cell in sorted(mine, key=lambda cell: -(cell.seed or 0))}
    spectra = []
    for label, cell in first.items():
        delta = Perturbation.load(store.uap(cell.uap)).delta
        radii, shares = radial_spectrum(delta)
        size, below = (delta.shape[-2], delta.shape[-1]), low_share(delta)
        spectra.append(SpectrumEntry(label, cell.uap, cell.data_class, size, below, tuple(radii), tuple(shares)))
    return spectra
