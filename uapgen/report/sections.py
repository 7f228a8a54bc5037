"""The sections that pages share: the victims, what to know before believing, and which classes a pattern fools."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UapgenError
from ..evaluation.comparison import ComparedVictim
from ..evaluation.document import RowEntry, VictimEntry
from ..evaluation.intervals import Rate
from ..images.labels import class_name
from ..tables import percent
from .page import PageCell, Section, Table, cells, rate_text


def victims_section(victims: Iterable[VictimEntry | ComparedVictim]) -> Section:
    """What was attacked, a row for each victim."""
    head = ("victim", "weights", "sha256", "preprocessing", "classes", "input", "clean accuracy %", "images")
    rows = [
        cells(
            about.name,
            " ".join(part for part in (about.weights, about.weights_source) if part),
            about.weights_sha256[:12],
            f"{about.interpolation}, crop {about.crop_pct:g}, mean {_numbers(about.mean)}, std {_numbers(about.std)}",
            about.num_classes,
            "×".join(str(n) for n in about.input_size[1:]),
            rate_text(victim.clean_accuracy),
            victim.n,
        )
        for victim, about in ((victim, victim.about) for victim in victims)
    ]
    text = "Frozen classifiers: pixels in [0, 1] go in, logits come out, and normalisation is the victim's own."
    return Section("What was attacked", [text], tables=[Table("Victims", head, rows, left=4)])


def _numbers(values: Sequence[float]) -> str:
    distinct = values[:1] if len(set(values)) == 1 else values
    return "/".join(f"{value:.3g}" for value in distinct)


def honesty(
    facts: list[tuple[str, str]], *, complete: bool, warnings: Iterable[str], quantized: bool, n: Iterable[int]
) -> Section:
    """How far the numbers carry: which images, what was rounded, what is missing, all warnings."""
    counts = " or ".join(str(count) for count in sorted(set(n)))
    rounding = "yes: a saved image fools as these do" if quantized else "no: these images were never saved"
    section = Section("How honest the numbers are")
    section.facts = [
        *facts,
        ("Images measured", counts),
        ("Rounded to 8 bits", rounding),
        ("Run", "complete" if complete else "not complete: some victims or methods are missing"),
    ]
    section.text = [
        "The fooling rate is the share of all images whose top-1 class under the pattern differs from the victim's "
        "own clean prediction. Brackets are Wilson's 95% intervals for the draw of images; they know nothing of seeds "
        "or of other data. The floor is the fooling rate of one random sign pattern of the same bound: a pattern is "
        "worth what it adds to that."
    ]
    section.notes = list(warnings) or ["No warning was raised."]
    return section


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
