"""Which classes a pattern fools: from the predictions that `uapgen evaluate --predictions` keeps."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UapgenError
from ..evaluation.document import RowEntry
from ..evaluation.intervals import Rate
from ..images.labels import class_name
from ..tables import percent
from .page import PageCell, Section, Table, cells

LEAST, SHOWN = 10, 12


def read_predictions(path: str | Path) -> dict[str, Any]:
    """The arrays of a predictions file. Raises UapgenError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in ("label", "clean", "adv", "victims", "uaps")}
        whole = arrays["adv"].shape == (len(arrays["victims"]), len(arrays["uaps"]), arrays["clean"].shape[1])
    except (OSError, KeyError, ValueError, EOFError, IndexError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        expected = "give what evaluate --predictions wrote"
        raise UapgenError(f"{path} cannot be read as predictions ({error}); {expected}") from error
    if not whole or arrays["label"].shape != arrays["clean"].shape:
        raise UapgenError(f"{path}: its arrays do not fit together; give what evaluate --predictions wrote")
    return arrays


def classes_section(path: str | Path, row: RowEntry, sha256: str, num_classes: int, name: str) -> Section:
    """Fooling rates by class of the perturbation `sha256` on the victim of `row`: the label, else the clean prediction.

    Classes of ten images and more; the most and the least fooled. Raises UapgenError for predictions of another run:
    their count of changed predictions must be the one that the results state.
    """
    held = read_predictions(path)
    victims, uaps = [list(map(str, held[key])) for key in ("victims", "uaps")]
    for v, u in ((v, u) for v, found in enumerate(victims) for u, sha in enumerate(uaps) if sha == sha256):
        clean, adv, labels = held["clean"][v], held["adv"][v, u], held["label"][v]
        read = clean >= 0
        clean, adv, labels = clean[read], adv[read], labels[read]
        counted = Rate(int((clean != adv).sum()), len(clean))
        if victims[v] == row.victim and counted == row.fooling_rate:
            return _section(clean, adv, labels, num_classes, f"{name} on {row.victim}")
    raise UapgenError(
        f"{path} holds the predictions of another evaluation than these results; give the one made with it"
    )


def _section(clean: Any, adv: Any, labels: Any, num_classes: int, title: str) -> Section:
    known = bool((labels >= 0).all())
    group = labels if known else clean
    rates = {int(c): Rate(int((clean != adv)[group == c].sum()), int((group == c).sum())) for c in np.unique(group)}
    many = {c: rate for c, rate in rates.items() if rate.n >= LEAST}
    by = "label" if known else "clean prediction"
    if not many:
        note = f"No class has {LEAST} images ({len(clean)} images, {len(rates)} classes by {by}): rates would be noise."
        return Section("Fooling by class", notes=[note])
    order = sorted(many, key=lambda c: (-(many[c].value or 0), c))
    shown = order if len(order) <= 2 * SHOWN else order[:SHOWN] + order[-SHOWN:]
    rows = [
        cells(
            class_name(c, num_classes) if c < num_classes else str(c),
            PageCell(percent(many[c].value), many[c].value),
            " to ".join(percent(end) for end in many[c].ci95),
            many[c].n,
        )
        for c in shown
    ]
    which = "all" if shown is order else f"the {SHOWN} most and the {SHOWN} least fooled of {len(order)}"
    caption = f"{title}: classes by {by} with {LEAST} images and more, {which}"
    return Section("Fooling by class", tables=[Table(caption, ("class", "fooling rate %", "95% CI", "images"), rows)])
