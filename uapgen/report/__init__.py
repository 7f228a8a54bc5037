"""One page that says what was attacked, with what, how honestly it was measured, and what came out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import UapgenError, UsageError
from ..evaluation.document import EVALUATION, StoredResults, load_results
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
    try:
        page = make_page(stored, predictions=predictions, images=images, victim=victim, device=device)
        text = render(page, form)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise UapgenError(
            f"{stored.path} lacks something that a report needs ({type(error).__name__}: {error}); measure again"
        ) from error
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
    if results.schema != EVALUATION:
        if predictions is not None:
            raise UsageError("--predictions goes with the results of evaluate; a comparison keeps none")
        page = _comparison(results, images, victim, device)
    else:
        page = _evaluation(results, predictions, images, victim, device)
    page.provenance.append(("Results", f"{results.path.name}, sha256 {_sha256(results.path)}"))
    return page


def _evaluation(
    results: StoredResults, predictions: str | Path | None, images: str | Path | None, victim: str | None, device: str
) -> Page:
    from .classes import classes_section
    from .evaluation import evaluation_page, label, worst_row
    from .pairs import pairs_section
    from .pictures import find_uaps

    document = results.document
    uaps, lacking = find_uaps(results)
    worst = worst_row(document)
    index, recorded = worst["uap"], _recorded(document["victims"], worst["victim_weights_sha256"])
    name = label(document, index)
    pairs = Section("Images and predictions", notes=lacking)
    if index in uaps:
        pairs = pairs_section(uaps[index], name, recorded, victim=victim, images=images, device=device)
        pairs.notes += lacking
    classes = Section(
        "Fooling by class",
        notes=["Not in this report: 'uapgen evaluate --predictions F' keeps what it takes; --predictions F adds it."],
    )
    if predictions is not None:
        sha256 = document["uaps"][index]["sha256"]
        classes = classes_section(predictions, worst, sha256, recorded["num_classes"], name)
    return evaluation_page(results, [pairs, classes], uaps)


def _comparison(results: StoredResults, images: str | Path | None, victim: str | None, device: str) -> Page:
    from .comparison import best_rows, comparison_page
    from .pairs import pairs_section
    from .pictures import find_crafted

    document = results.document
    uaps, lacking = find_crafted(results)
    pairs = Section("Images and predictions", notes=lacking)
    crafted = [row["method"] for row in best_rows(document) if row["method"] in uaps]
    if crafted:
        recorded = document["victims"][document["crafted_on"][0]]
        pairs = pairs_section(uaps[crafted[0]], crafted[0], recorded, victim=victim, images=images, device=device)
        pairs.notes += lacking
    return comparison_page(results, [pairs], uaps)


def _recorded(victims: list[dict[str, Any]], weights_sha256: str) -> dict[str, Any]:
    return next(victim for victim in victims if victim["weights_sha256"] == weights_sha256)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "unknown"
