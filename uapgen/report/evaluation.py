"""The page of `uapgen evaluate`'s results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation.document import StoredResults, all_rows
from ..perturbation import Perturbation
from .page import Cell, Page, Section, Table, cells, levels, percent, rate_text
from .pictures import pattern_picture, spectra_picture
from .victims import DATA_CLASSES, honesty, victims_section


def worst_row(document: dict[str, Any]) -> dict[str, Any]:
    """The row of the highest fooling rate."""
    return max(document["rows"], key=lambda row: row["fooling_rate"]["rate"] or 0)


def evaluation_page(results: StoredResults, extra: Sequence[Section], uaps: dict[int, Perturbation]) -> Page:
    """`extra` are sections on pairs and classes; `uaps` what `find_uaps` found."""
    document = results.document
    worst = worst_row(document)
    name = f"{worst['method']} ({levels(worst['norm'], worst['eps'])})"
    lead = (
        f"{name} changes {percent(worst['fooling_rate']['rate'])}% of the predictions of {worst['victim']}; "
        f"one random pattern of that bound changes {percent((worst['noise_floor'] or {}).get('rate'))}%."
    )
    return Page(
        title="Robustness to universal perturbations",
        lead=lead,
        facts=_headline(worst, document),
        sections=[
            victims_section(document["victims"]),
            _perturbations(document),
            _honesty(document, results.complete),
            _rates(document),
            *([_heat(document)] if len(document["victims"]) > 1 else []),
            *_patterns(document, uaps),
            *extra[:1],
            _dominant(document),
            *extra[1:],
        ],
        provenance=[("Command", results.command or "unknown"), *_environment(document)],
    )


def label(document: dict[str, Any], index: int) -> str:
    """A perturbation's short name: its file's; the folder too where two files are called alike."""
    names = [Path(entry["file"]).name for entry in document["uaps"]]
    return names[index] if names.count(names[index]) == 1 else str(document["uaps"][index]["file"])


def _headline(worst: dict[str, Any], document: dict[str, Any]) -> list[tuple[str, str, str]]:
    low, high = worst["fooling_rate"]["ci95"] or (0.0, 1.0)
    kind = str(document["uaps"][worst["uap"]]["card"]["data"].get("class"))
    return [
        ("Highest fooling rate", f"{percent(worst['fooling_rate']['rate'])}%", f"{percent(low)} to {percent(high)}%"),
        ("Random floor", f"{percent((worst['noise_floor'] or {}).get('rate'))}%", "one random sign pattern"),
        ("Accuracy, clean", f"{percent((worst['clean_accuracy'] or {}).get('rate'))}%", "where labels are known"),
        ("Accuracy, perturbed", f"{percent((worst['adversarial_accuracy'] or {}).get('rate'))}%", "same images"),
        ("Images", str(worst["n"]), "measured"),
        ("Crafting saw", {"none": "no data"}.get(kind, f"{kind} data"), DATA_CLASSES.get(kind, "")),
    ]


def _perturbations(document: dict[str, Any]) -> Section:
    head = ("pattern", "method", "data class", "bound", "crafted on", "seed", "image-gradients", "sha256")
    rows = []
    for index, entry in enumerate(document["uaps"]):
        card = entry["card"]
        victim, cost = card.get("victim") or {}, card.get("cost") or {}
        method = " ".join(str(part) for part in (card["method"]["name"], card["method"].get("paper")) if part)
        bound = levels(card["budget"]["norm"], card["budget"]["eps"])
        spent = cost.get("image_gradients")
        rows.append(
            cells(
                label(document, index),
                method,
                f"{card['data'].get('class')}: {DATA_CLASSES.get(str(card['data'].get('class')), '')}",
                bound,
                victim.get("name", "unknown"),
                card.get("seed"),
                None if spent is None else f"{spent:,}",
                str(entry["sha256"])[:12],
            )
        )
    return Section("With what", tables=[Table("Perturbations", head, rows, left=5)])


def _honesty(document: dict[str, Any], complete: bool) -> Section:
    data = document["victims"][0]["data"]
    facts = [
        ("Data", f"{document['data']} ({data['images']} images, {data['labelled']} labelled)"),
        ("List of images, sha256", str(data["list_sha256"])[:16]),
        ("Images that could not be read", str(len(data["corrupt"]))),
    ]
    n = (victim["n"] for victim in document["victims"])
    return honesty(facts, complete=complete, warnings=document["warnings"], quantized=document["quantized"], n=n)


def _rates(document: dict[str, Any]) -> Section:
    held = all_rows(document)
    defended = len(held) > len(document["rows"])
    head = ["pattern", "victim", *(["defence"] if defended else []), "fooling rate % [95% CI]", "floor %"]
    head += ["clean acc %", "adv acc %", "success on correct %", "n"]
    rows = [
        cells(
            label(document, row["uap"]),
            row["victim"] + (" *" if row["white_box"] else ""),
            *([row.get("defence") or "none"] if defended else []),
            Cell(rate_text(row["fooling_rate"]), strong=True),
            *(_rate(row[key]) for key in ("noise_floor", "clean_accuracy", "adversarial_accuracy")),
            _rate(row["success_on_correct"]),
            row["n"],
        )
        for row in held
    ]
    notes = ["* crafted on this very victim (white box)"] if any(row["white_box"] for row in held) else []
    table = Table("Rates of every pattern on every victim", head, rows, left=3 if defended else 2)
    return Section("Results", tables=[table], notes=notes)


def _rate(rate: dict[str, Any] | None) -> str:
    return percent(rate["rate"] if rate else None)


def _heat(document: dict[str, Any]) -> Section:
    victims = [(victim["name"], victim["weights_sha256"]) for victim in document["victims"]]
    rows = []
    for index in range(len(document["uaps"])):
        held = {(row["victim"], row["victim_weights_sha256"]): row for row in document["rows"] if row["uap"] == index}
        heat = [_heat_cell(held.get(victim)) for victim in victims]
        rows.append([Cell(label(document, index)), *heat])
    caption = "Fooling rates in %: patterns down, victims across; *: crafted on that victim"
    return Section("Transfer", tables=[Table(caption, ["pattern", *(name for name, _ in victims)], rows)])


def _heat_cell(row: dict[str, Any] | None) -> Cell:
    share = row["fooling_rate"]["rate"] if row else None
    own = bool(row and row["white_box"])
    return Cell(percent(share) + (" *" if own else ""), share, own)


def _patterns(document: dict[str, Any], uaps: dict[int, Perturbation]) -> list[Section]:
    if not uaps:
        return []
    pictures = [pattern_picture(uap, label(document, index)) for index, uap in uaps.items()]
    spectra = spectra_picture({label(document, index): uap for index, uap in uaps.items()})
    text = "Amplified around mid-grey until the bound fills the range: pictures to look at, not the perturbations."
    return [
        Section("The patterns", [text], pictures=pictures),
        Section("Where they have their power", pictures=[spectra] if spectra else []),
    ]


def _dominant(document: dict[str, Any]) -> Section:
    head = ("pattern", "victim", "class", "share of perturbed images %", "images")
    rows = [
        cells(
            label(document, row["uap"]),
            row["victim"],
            entry["name"],
            Cell(percent(entry["rate"]), entry["rate"]),
            entry["count"],
        )
        for row in document["rows"]
        for entry in row["dominant_classes"][:3]
    ]
    text = "Universal patterns drive images into few classes. These are where most perturbed images end."
    return Section("Dominant classes", [text], tables=[Table("Top classes under each pattern", head, rows, left=3)])


def _environment(document: dict[str, Any]) -> list[tuple[str, str]]:
    held = document["victims"][0]["environment"]
    seconds = sum(victim["seconds"] for victim in document["victims"])
    words = ", ".join(f"{key} {value}" for key, value in held.items() if value is not None)
    return [
        ("Measured with", f"uapgen {document['uapgen']}, {words}"),
        ("Seed of the floor", str(document["seed"])),
        ("Seconds", f"{seconds:.1f}"),
    ]
