"""What a comparison leaves: results.json, table.md and the figures, all from its folder alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..experiments.cells import Record, failed
from ..perturbation import Perturbation
from ..perturbation.picture import low_share, radial_spectrum
from ..runtime import atomic_write
from .store import Store
from .table import curves_of, render, rows_of, transfer_matrix

SCHEMA = "uapgen.comparison/1"


def write_report(
    store: Store,
    options: dict[str, Any],
    *,
    command: str | None = None,
    complete: bool = False,
    figures: bool = False,
) -> dict[str, Any]:
    """Writes results.json and table.md, with `figures` also the four .png files; returns the content of the first.

    `options` are those of `Store.settle`. Everything in the folder is reported, also what earlier calls put there.
    """
    lines = store.cells.read()
    cells = _current(store, lines)
    crafted_on = [name for name in options["victims"] if any(cell["crafted_on"] == name for cell in cells)]
    places = crafted_on or list(options["victims"])[:1]
    rows = [row for name in places for row in rows_of(cells, name)]
    sources = [row for row in rows if row["crafted_on"] or row["victim"] == places[0]]  # an import is one source
    result = {
        "schema": SCHEMA,
        "uapgen": __version__,
        "command": command,
        "complete": complete,
        **{key: options[key] for key in ("eps", "norm", "budget", "data", "train_data")},
        "eps_255": round(options["eps"] * 255, 6),
        "quantized": True,
        "victims": {name: {**options["victims"][name], **_measured(cells, name)} for name in options["victims"]},
        "crafted_on": places,
        "rows": rows,
        "transfer": transfer_matrix(cells, sources, list(options["victims"])),
        "curves": curves_of(store.curves.read(), cells),
        "spectra": _spectra(store, cells, places[0]),
        "failed": _failures(store, lines, cells),
        "warnings": list(dict.fromkeys(text for cell in cells for text in cell["warnings"])),
        "cells": cells,
    }
    with atomic_write(store.path / "results.json") as temporary:
        temporary.write_text(to_json(result))
    with atomic_write(store.path / "table.md") as temporary:
        temporary.write_text(render(result))
    if figures:
        from .figures import draw_all

        draw_all(result, store)
    return result


def to_json(result: dict[str, Any]) -> str:
    """One line for each entry of each list: a file that people can read and diff."""

    def text(value: Any) -> str:
        lines = isinstance(value, list) and value and isinstance(value[0], dict)
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if lines else json.dumps(value)

    return "{\n" + ",\n".join(f" {json.dumps(key)}: {text(value)}" for key, value in result.items()) + "\n}\n"


def _current(store: Store, lines: Sequence[Record]) -> list[Record]:
    """The last cell of each perturbation on each victim, without those whose perturbation was removed."""
    last = {(line["uap"], line["victim"]): line for line in lines if not failed(line)}
    return [cell for cell in last.values() if store.uap(cell["uap"]).is_file()]


def _failures(store: Store, lines: Sequence[Record], cells: Sequence[Record]) -> list[dict[str, str]]:
    """What failed and was not made good since, each part of a perturbation once."""
    drawn = {line["uap"] for line in store.curves.read()}
    done = {("cell", cell["uap"], cell["victim"]) for cell in cells} | {("curve", uap, None) for uap in drawn}
    found: dict[tuple[str, str, str | None], Record] = {}
    for line in filter(failed, lines):
        key = line["part"], line["uap"], line["victim"] if line["part"] == "cell" else None
        if key not in done and not (line["part"] == "craft" and store.uap(line["uap"]).is_file()):
            found[key] = line
    return [{name: line[name] for name in ("uap", "title", "error")} for line in found.values()]


def _measured(cells: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    found = next((cell for cell in cells if cell["victim"] == name), None)
    return {key: found[key] if found else None for key in ("n", "floor", "clean_accuracy")}


def _spectra(store: Store, cells: Sequence[dict[str, Any]], victim: str) -> list[dict[str, Any]]:
    """Of the first seed's patterns crafted on `victim`, and of imported ones."""
    mine = [cell for cell in cells if cell["crafted_on"] in (victim, None) and cell["victim"] == victim]
    first = {cell["method"]: cell for cell in sorted(mine, key=lambda cell: -(cell["seed"] or 0))}
    spectra = []
    for label, cell in first.items():
        delta = Perturbation.load(store.uap(cell["uap"])).delta
        radii, shares = radial_spectrum(delta)
        spectra.append(
            {
                "method": label,
                "uap": cell["uap"],
                "data_class": cell["data_class"],
                "size": list(delta.shape[-2:]),
                "below_28": low_share(delta),
                "cycles_per_image": radii,
                "share": shares,
            }
        )
    return spectra
