"""The page of a comparison's results.json and folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..compare.figures import draw_curves
from ..evaluation.comparison import Comparison, MethodRow
from ..evaluation.intervals import value_of
from ..perturbation import Perturbation
from ..perturbation.ball import levels
from ..perturbation.card import DATA_WORDS, SHORT_WORDS
from ..tables import percent
from .page import Page, PageCell, Picture, Section, Table, cells
from .pictures import drawn, pattern_picture, spectra_picture
from .sections import honesty, victims_section


def comparison_page(document: Comparison, extra: Sequence[Section], uaps: dict[str, Perturbation]) -> Page:
    """`extra` are further sections; `uaps` what `find_crafted` found."""
    return Page(
        title="Universal perturbations compared",
        lead=_lead(document),
        facts=_headline(document),
        sections=[
            victims_section(document.victims.values()),
            _methods(document),
            _honesty(document),
            *(_rates(document, name) for name in document.crafted_on),
            *([_transfer(document)] if len(document.transfer.victims) > 1 else []),
            *([_curves(document)] if document.curves else []),
            *_patterns(document, uaps),
            *extra,
        ],
        provenance=[
            ("Command", document.command or "unknown"),
            ("Measured with", f"uapgen {document.uapgen}"),
            ("Budget", f"{document.budget:,} image-gradients for each pattern"),
        ],
    )


def best_rows(document: Comparison) -> list[MethodRow]:
    """The first row of each data class on the first crafted victim; within a class rows fall by fooling rate."""
    victim = document.crafted_on[0]
    best: dict[str, MethodRow] = {}
    for row in document.rows:
        if row.victim == victim:
            best.setdefault(row.data_class, row)
    return list(best.values())


def _lead(document: Comparison) -> str:
    victim = document.crafted_on[0]
    best = [
        f"{row.method} reaches {percent(row.fooling_rate.mean)}% ({DATA_WORDS[row.data_class]})"
        for row in best_rows(document)
        if row.data_class != "unknown"
    ]
    floor = percent(value_of(document.victims[victim].floor))
    return f"On {victim}, {'; '.join(best) or 'nothing was crafted'}; one random pattern changes {floor}%."


def _headline(document: Comparison) -> list[tuple[str, str, str]]:
    facts = [
        (f"Best, {SHORT_WORDS[row.data_class]}", f"{percent(row.fooling_rate.mean)}%", row.method)
        for row in best_rows(document)
    ]
    n = document.victims[document.crafted_on[0]].n
    return [
        *facts,
        ("Bound", levels(document.norm, document.eps), "every pattern"),
        ("Images", str(n), "measured"),
    ]


def _methods(document: Comparison) -> Section:
    kinds = dict.fromkeys(row.data_class for row in document.rows)
    section = Section("With what")
    section.facts = [("Bound", levels(document.norm, document.eps)), ("Budget", _budget(document))]
    section.facts += [
        (
            f"{SHORT_WORDS[kind].capitalize()}: {DATA_WORDS[kind]}",
            ", ".join(dict.fromkeys(r.method for r in document.rows if r.data_class == kind)),
        )
        for kind in kinds
    ]
    return section


def _budget(document: Comparison) -> str:
    return f"{document.budget:,} images forwarded and back-propagated through the victim, for each pattern"


def _honesty(document: Comparison) -> Section:
    data, training = document.data, document.train_data
    facts = [
        ("Data", f"{data.path} ({data.images} images)"),
        ("List of images, sha256", str(data.sha256)[:16]),
        ("Data of data-driven methods", f"{training.path} ({training.images} images)" if training else "none"),
    ]
    failed = [f"failed: {entry.title}: {entry.error}" for entry in document.failed]
    n = (victim.n for victim in document.victims.values() if victim.n is not None)
    warnings = [*failed, *document.warnings]
    section = honesty(facts, complete=document.complete, warnings=warnings, quantized=document.quantized, n=n)
    section.text.append("With several seeds a rate is their mean, and ± is the sample standard deviation over seeds.")
    return section


def _rates(document: Comparison, victim: str) -> Section:
    head = (
        "method",
        "data class",
        "fooling rate %",
        "95% CI",
        "floor %",
        "transfer %",
        "image-gradients",
        "below 28 %",
    )
    rows = []
    for row in document.rows:
        if row.victim != victim:
            continue
        rate = row.fooling_rate
        spread = f" ± {percent(rate.std)}" if rate.std is not None else ""
        spent = row.image_gradients
        rows.append(
            cells(
                row.method,
                row.data_class,
                PageCell(percent(rate.mean) + spread, rate.mean, strong=True),
                f"{percent(rate.ci95[0])} to {percent(rate.ci95[1])}",
                percent(row.floor),
                percent(row.transfer.mean),
                None if spent is None else f"{spent:,.0f}",
                percent(row.below_28),
            )
        )
    caption = "Methods by data class; transfer: mean over the other victims; below 28: power below 28 cycles per image"
    return Section(f"Results on {victim}", tables=[Table(caption, head, rows, left=2)])


def _transfer(document: Comparison) -> Section:
    names = document.transfer.victims
    several = len(document.crafted_on) > 1  # else the column would say one name over and over
    rows = []
    for row in document.transfer.rows:
        rates = zip(names, row.rates, strict=True)
        heat = [_heat_cell(rate, name == row.crafted_on) for name, rate in rates]
        origin = [row.crafted_on or "imported"] if several else []
        rows.append([*cells(row.method, *origin), *heat])
    head = ["method", *(["crafted on"] if several else []), *names]
    caption = "Fooling rates in %: crafted down, measured across; *: the victim it was crafted on (none: imported)"
    return Section("Transfer", tables=[Table(caption, head, rows, left=1 + several)])


def _heat_cell(rate: float | None, own: bool) -> PageCell:
    return PageCell(percent(rate) + (" *" if own else ""), rate, own)


def _curves(document: Comparison) -> Section:
    def draw(path: Path) -> None:
        draw_curves(document, path)

    ends = ", ".join(f"{curve.method} {percent(curve.rates[-1])}%" for curve in document.curves)
    alt = f"Fooling rate over image-gradients, a panel for each method with the others in grey. They end at: {ends}."
    return Section("Fooling rate over cost", pictures=[Picture(drawn(draw), alt, wide=True)])


def _patterns(document: Comparison, uaps: dict[str, Perturbation]) -> list[Section]:
    if not uaps:
        return []
    victim = document.crafted_on[0]
    means = {row.method: row.fooling_rate.mean for row in document.rows if row.victim == victim}
    pictures = [pattern_picture(uap, name, f"; {percent(means.get(name))}%") for name, uap in uaps.items()]
    spectra = spectra_picture(uaps)
    text = f"Crafted for {victim}, amplified around mid-grey: pictures to look at, not the perturbations."
    return [
        Section("The patterns", [text], pictures=pictures),
        Section("Where they have their power", pictures=[spectra] if spectra else []),
    ]
