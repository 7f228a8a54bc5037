"""The page of `uapgen evaluate`'s results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..evaluation.document import EvaluationDocument, RowEntry
from ..evaluation.intervals import value_of
from ..perturbation import Perturbation
from ..perturbation.ball import levels
from ..perturbation.card import DATA_WORDS
from ..tables import percent
from .page import Page, PageCell, Section, Table, cells, rate_text
from .pictures import pattern_picture, spectra_picture
from .sections import honesty, victims_section


def worst_row(document: EvaluationDocument) -> RowEntry:
    """The row of the highest fooling rate."""
    return max(document.rows, key=lambda row: row.fooling_rate.value or 0)


def evaluation_page(document: EvaluationDocument, extra: Sequence[Section], uaps: dict[int, Perturbation]) -> Page:
    """`extra` are sections on pairs and classes; `uaps` what `find_uaps` found."""
    worst = worst_row(document)
    name = f"{worst.method} ({levels(worst.norm, worst.eps)})"
    lead = (
        f"{name} changes {percent(worst.fooling_rate.value)}% of the predictions of {worst.victim}; "
        f"one random pattern of that bound changes {percent(value_of(worst.noise_floor))}%."
    )
    return Page(
        title="Robustness to universal perturbations",
        lead=lead,
        facts=_headline(worst, document),
        sections=[
            victims_section(document.victims),
            _perturbations(document),
            _honesty(document),
            _rates(document),
            *([_heat(document)] if len(document.victims) > 1 else []),
            *_patterns(document, uaps),
            *extra[:1],
            _dominant(document),
            *extra[1:],
        ],
        provenance=[("Command", document.command or "unknown"), *_environment(document)],
    )


def label(document: EvaluationDocument, index: int | None) -> str:
    """A perturbation's short name: its file's; the folder too where two files are called alike."""
    assert index is not None  # of an attack that sees each image, which has no row here
    names = [Path(entry.file).name for entry in document.uaps]
    return names[index] if names.count(names[index]) == 1 else document.uaps[index].file


def _headline(worst: RowEntry, document: EvaluationDocument) -> list[tuple[str, str, str]]:
    low, high = worst.fooling_rate.ci95
    kind = str(document.pattern(worst).card.data.kind)
    return [
        ("Highest fooling rate", f"{percent(worst.fooling_rate.value)}%", f"{percent(low)} to {percent(high)}%"),
        ("Random floor", f"{percent(value_of(worst.noise_floor))}%", "one random sign pattern"),
        ("Accuracy, clean", f"{percent(value_of(worst.clean_accuracy))}%", "where labels are known"),
        ("Accuracy, perturbed", f"{percent(value_of(worst.adversarial_accuracy))}%", "same images"),
        ("Images", str(worst.n), "measured"),
        ("Crafting saw", {"none": "no data"}.get(kind, f"{kind} data"), DATA_WORDS.get(kind, "")),
    ]


def _perturbations(document: EvaluationDocument) -> Section:
    head = ("pattern", "method", "data class", "bound", "crafted on", "seed", "image-gradients", "sha256")
    rows = []
    for index, entry in enumerate(document.uaps):
        card = entry.card
        kind, spent = str(card.data.kind), card.cost.image_gradients if card.cost else None
        rows.append(
            cells(
                label(document, index),
                " ".join(part for part in (card.method.name, card.method.paper) if part),
                f"{kind}: {DATA_WORDS.get(kind, '')}",
                card.budget.text,
                card.victim.name if card.victim else "unknown",
                card.seed,
                None if spent is None else f"{spent:,}",
                entry.sha256[:12],
            )
        )
    return Section("With what", tables=[Table("Perturbations", head, rows, left=5)])


def _honesty(document: EvaluationDocument) -> Section:
    data = document.victims[0].data
    facts = [
        ("Data", f"{document.data} ({data.images} images, {data.labelled} labelled)"),
        ("List of images, sha256", data.list_sha256[:16]),
        ("Images that could not be read", str(len(data.corrupt))),
    ]
    n = (victim.n for victim in document.victims)
    return honesty(facts, complete=document.complete, warnings=document.warnings, quantized=document.quantized, n=n)


def _rates(document: EvaluationDocument) -> Section:
    held = document.all_rows()
    defended = len(held) > len(document.rows)
    head = ["pattern", "victim", *(["defence"] if defended else []), "fooling rate % [95% CI]", "floor %"]
    head += ["clean acc %", "adv acc %", "success on correct %", "n"]
    rows = [
        cells(
            label(document, row.uap),
            row.victim + (" *" if row.white_box else ""),
            *([defence] if defended else []),
            PageCell(rate_text(row.fooling_rate), strong=True),
            *(percent(value_of(rate)) for rate in (row.noise_floor, row.clean_accuracy, row.adversarial_accuracy)),
            percent(value_of(row.success_on_correct)),
            row.n,
        )
        for defence, row in held
    ]
    notes = ["* crafted on this very victim (white box)"] if any(row.white_box for _, row in held) else []
    table = Table("Rates of every pattern on every victim", head, rows, left=3 if defended else 2)
    return Section("Results", tables=[table], notes=notes)


def _heat(document: EvaluationDocument) -> Section:
    victims = [victim.about.key for victim in document.victims]
    rows = []
    for index in range(len(document.uaps)):
        held = {row.victim_key: row for row in document.rows if row.uap == index}
        heat = [_heat_cell(held.get(victim)) for victim in victims]
        rows.append([PageCell(label(document, index)), *heat])
    caption = "Fooling rates in %: patterns down, victims across; *: crafted on that victim"
    return Section("Transfer", tables=[Table(caption, ["pattern", *(name for name, _ in victims)], rows)])


def _heat_cell(row: RowEntry | None) -> PageCell:
    share = row.fooling_rate.value if row else None
    own = bool(row and row.white_box)
    return PageCell(percent(share) + (" *" if own else ""), share, own)


def _patterns(document: EvaluationDocument, uaps: dict[int, Perturbation]) -> list[Section]:
    if not uaps:
        return []
    pictures = [pattern_picture(uap, label(document, index)) for index, uap in uaps.items()]
    spectra = spectra_picture({label(document, index): uap for index, uap in uaps.items()})
    text = "Amplified around mid-grey until the bound fills the range: pictures to look at, not the perturbations."
    return [
        Section("The patterns", [text], pictures=pictures),
        Section("Where they have their power", pictures=[spectra] if spectra else []),
    ]


def _dominant(document: EvaluationDocument) -> Section:
    head = ("pattern", "victim", "class", "share of perturbed images %", "images")
    rows = [
        cells(
            label(document, row.uap),
            row.victim,
            entry.name,
            PageCell(percent(entry.rate.value), entry.rate.value),
            entry.rate.count,
        )
        for row in document.rows
        for entry in row.dominant_classes[:3]
    ]
    text = "Universal patterns drive images into few classes. These are where most perturbed images end."
    return Section("Dominant classes", [text], tables=[Table("Top classes under each pattern", head, rows, left=3)])


def _environment(document: EvaluationDocument) -> list[tuple[str, str]]:
    held = document.victims[0].environment
    seconds = sum(victim.seconds for victim in document.victims)
    words = ", ".join(f"{key} {value}" for key, value in held.items() if value is not None)
    return [
        ("Measured with", f"uapgen {document.uapgen}, {words}"),
        ("Seed of the floor", str(document.seed)),
        ("Seconds", f"{seconds:.1f}"),
    ]
