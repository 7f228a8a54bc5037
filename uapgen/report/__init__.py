"""One page that says what was attacked, with what, how honestly it was measured, and what came out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..evaluation.comparison import Comparison
from ..evaluation.document import EvaluationDocument
from ..evaluation.stored import StoredResults, load_results
from ..runtime import atomic_write
from .page import FORMATS, Page, Section, render

__all__ = ["make_page", "write_report"]


def write_report(
    results: str | Path,
    out: str | Path,
    *,
    form: str | None = None,
    predictions: str | Path | None = None,
    images: str | Path | None = None,
    victim: str | None = None,
    device: str = "auto",
) -> Page:
    """Writes the page of `results` (of evaluate --json, or a comparison's folder) to `out`, and returns it.

    `form` is html or md, by default as `out` ends. `predictions` (of evaluate --predictions) adds rates by class,
    `images` a folder whose pictures are shown (foolbox's samples otherwise, where the victim fits them), `victim` the
    spec of the victim where its recorded name cannot be loaded.

    Raises UsageError for another form, UapgenError for files that are missing, damaged or belong to another run.
    """
    form = form or Path(out).suffix.lower().lstrip(".")
    if form not in FORMATS:
        raise UsageError(f"{out} ends in neither .html nor .md; give --format html or md")
    stored = load_results(results)
    page = make_page(stored, predictions=predictions, images=images, victim=victim, device=device)
    text = render(page, form)
    with atomic_write(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return page


def make_page(
    results: StoredResults,
    *,
    predictions: str | Path | None = None,
    images: str | Path | None = None,
    victim: str | None = None,
    device: str = "auto",
) -> Page:
    """The content of the page; arguments as `write_report` takes them."""
    shown = {"victim": victim, "images": images, "device": device}
    folder = results.path.parent
    if isinstance(results.document, EvaluationDocument):
        page = _evaluation(results.document, folder, predictions, shown)
    elif predictions is not None:
        raise UsageError("--predictions goes with the results of evaluate; a comparison keeps none")
    else:
        page = _comparison(results.document, folder, shown)
    page.provenance.append(("Results", f"{results.path.name}, sha256 {_sha256(results.path)}"))
    return page


def _evaluation(
    document: EvaluationDocument, folder: Path, predictions: str | Path | None, shown: dict[str, Any]
) -> Page:
    from .evaluation import evaluation_page, label, worst_row
    from .pictures import find_uaps, pairs_section
    from .sections import classes_section

    uaps, lacking = find_uaps(document, folder)
    worst = worst_row(document)
    about, index = document.victim(worst).about, worst.uap
    assert index is not None
    name = label(document, index)
    pairs = Section("Images and predictions", notes=lacking)
    if index in uaps:
        pairs = pairs_section(uaps[index], name, about, **shown)
        pairs.notes += lacking
    classes = Section(
        "Fooling by class",
        notes=["Not in this report: 'uapgen evaluate --predictions F' keeps what it takes; --predictions F adds it."],
    )
    if predictions is not None:
        classes = classes_section(predictions, worst, document.uaps[index].sha256, about.num_classes, name)
    return evaluation_page(document, [pairs, classes], uaps)


def _comparison(document: Comparison, folder: Path, shown: dict[str, Any]) -> Page:
    from .comparison import best_rows, comparison_page
    from .pictures import find_crafted, pairs_section

    uaps, lacking = find_crafted(document, folder)
    pairs = Section("Images and predictions", notes=lacking)
    crafted = [row.method for row in best_rows(document) if row.method in uaps]
    if crafted:
        about = document.victims[document.crafted_on[0]].about
        pairs = pairs_section(uaps[crafted[0]], crafted[0], about, **shown)
        pairs.notes += lacking
    return comparison_page(document, [pairs], uaps)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "unknown"
