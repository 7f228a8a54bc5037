"""The perturbations that results are about, where their files still are."""

from __future__ import annotations

from pathlib import Path

from ..compare.store import Store
from ..errors import UapgenError
from ..evaluation.stored import StoredResults
from ..perturbation import Perturbation


def find_uaps(results: StoredResults) -> tuple[dict[int, Perturbation], list[str]]:
    """The perturbations that the results are about, by position, and a note for each that is not to be found.

    Files are looked for where the command was run, and beside the results; their hash must be the recorded one.
    """
    found: dict[int, Perturbation] = {}
    notes: list[str] = []
    for index, entry in enumerate(results.document["uaps"]):
        given = Path(entry["file"])
        places = (given, results.path.parent / given, results.path.parent / given.name)
        why = "is not there"
        for place in dict.fromkeys(places):
            try:
                uap = Perturbation.load(place)
            except UapgenError:
                continue
            if uap.sha256 == entry["sha256"]:
                found[index] = uap
                break
            why = "holds another perturbation now"
        if index not in found:
            notes.append(f"{entry['file']} {why}: its pattern is not shown")
    return found, notes


def find_crafted(results: StoredResults) -> tuple[dict[str, Perturbation], list[str]]:
    """One perturbation of each method for the first crafted victim, as its table is ordered; and a note on the rest."""
    store = Store(results.path.parent)
    lacking: list[str] = []
    found: dict[str, Perturbation] = {}
    order = [row["method"] for row in results.document["rows"]]
    for entry in sorted(results.document["spectra"], key=lambda entry: order.index(entry["method"])):
        try:
            found[str(entry["method"])] = Perturbation.load(store.uap(entry["uap"]))
        except UapgenError:
            lacking.append(str(entry["method"]))
    if not lacking:
        return found, []
    if not found:
        return found, [f"No pattern is shown: their files are not in {store.path / 'uaps'}."]
    return found, [f"Not shown, because their files are not in {store.path / 'uaps'}: {', '.join(lacking)}."]
