"""The perturbations that results are about, as pictures and spectra."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from torch import Tensor

from ..compare.figures import draw_spectra
from ..compare.store import Store
from ..errors import UapgenError
from ..evaluation.document import StoredResults
from ..perturbation import Perturbation
from ..perturbation.picture import LOW, amplification, low_share, pattern, radial_spectrum
from .page import Picture, levels, percent


def as_png(pixels: Tensor) -> bytes:
    """uint8 (3,H,W) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.movedim(0, -1).contiguous().numpy()).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def drawn(draw: Callable[[Path], None]) -> bytes:
    """What `draw` writes into the file that it is given."""
    with TemporaryDirectory(prefix="uapgen-report-") as folder:
        file = Path(folder) / "figure.png"
        draw(file)
        return file.read_bytes()


def pattern_picture(uap: Perturbation, name: str, remark: str = "") -> Picture:
    h, w = uap.size
    bound = levels(uap.norm, uap.eps)
    alt = (
        f"Amplified pattern of {name}, {h} by {w} pixels, {bound}; "
        f"{percent(low_share(uap.delta), 0)}% of its power lies below {LOW} cycles per image."
    )
    method = "" if uap.method in name else f": {uap.method}"
    caption = f"{name}{method}, {bound}, amplified ×{amplification(uap):.3g}{remark}"
    return Picture(as_png(pattern(uap)), alt, caption)


def spectra_picture(uaps: Mapping[str, Perturbation]) -> Picture | None:
    """Radial spectra, one panel for each; drawn as a comparison draws them. None where all patterns are flat."""
    entries: list[dict[str, Any]] = []
    words: list[str] = []
    for name, uap in uaps.items():
        radii, shares = radial_spectrum(uap.delta)
        if not any(shares):
            continue
        below = low_share(uap.delta)
        words.append(f"{name} {percent(below, 0)}%")
        entries.append(
            {
                "method": name,
                "data_class": uap.data_class,
                "size": list(uap.size),
                "below_28": below,
                "cycles_per_image": radii,
                "share": shares,
            }
        )
    if not entries:
        return None
    result = {
        "crafted_on": [""],
        "rows": [{"method": entry["method"], "victim": ""} for entry in entries],
        "spectra": entries,
    }
    alt = f"Power over spatial frequency, both on logarithmic axes. Share below {LOW} cycles per image: "
    return Picture(drawn(lambda path: draw_spectra(result, path)), alt + ", ".join(words), wide=True)


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
