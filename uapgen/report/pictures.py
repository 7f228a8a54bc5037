"""The perturbations that results are about, as pictures and spectra."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from PIL import Image
from torch import Tensor

from ..compare.figures import draw_spectra
from ..compare.store import Store
from ..errors import UapgenError
from ..evaluation.comparison import Comparison, DataClass, SpectrumEntry
from ..evaluation.document import EvaluationDocument
from ..perturbation import Perturbation
from ..perturbation.card import levels
from ..perturbation.picture import LOW, amplification, low_share, pattern, radial_spectrum
from ..tables import percent
from .page import Picture


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
    entries = [(name, uap, *radial_spectrum(uap.delta), low_share(uap.delta)) for name, uap in uaps.items()]
    spectra = [
        SpectrumEntry(name, name, cast(DataClass, uap.data_class), uap.size, below, tuple(radii), tuple(shares))
        for name, uap, radii, shares, below in entries
        if any(shares)
    ]
    if not spectra:
        return None
    words = ", ".join(f"{entry.method} {percent(entry.below_28, 0)}%" for entry in spectra)
    alt = f"Power over spatial frequency, both on logarithmic axes. Share below {LOW} cycles per image: {words}"
    return Picture(drawn(lambda path: draw_spectra(spectra, path)), alt, wide=True)


def find_uaps(document: EvaluationDocument, folder: Path) -> tuple[dict[int, Perturbation], list[str]]:
    """The perturbations that the results are about, by position, and a note for each that is not to be found.

    Files are looked for where the command was run, and in the `folder` of the results; their hash must be the recorded.
    """
    found: dict[int, Perturbation] = {}
    notes: list[str] = []
    for index, entry in enumerate(document.uaps):
        given = Path(entry.file)
        why = "is not there"
        for place in dict.fromkeys((given, folder / given, folder / given.name)):
            try:
                uap = Perturbation.load(place)
            except UapgenError:
                continue
            if uap.sha256 == entry.sha256:
                found[index] = uap
                break
            why = "holds another perturbation now"
        if index not in found:
            notes.append(f"{entry.file} {why}: its pattern is not shown")
    return found, notes


def find_crafted(document: Comparison, folder: Path) -> tuple[dict[str, Perturbation], list[str]]:
    """One perturbation of each method for the first crafted victim, as its table is ordered; and a note on the rest."""
    store = Store(folder)
    lacking: list[str] = []
    found: dict[str, Perturbation] = {}
    order = [row.method for row in document.rows]
    for entry in sorted(document.spectra, key=lambda entry: order.index(entry.method)):
        try:
            found[entry.method] = Perturbation.load(store.uap(entry.uap))
        except UapgenError:
            lacking.append(entry.method)
    if not lacking:
        return found, []
    if not found:
        return found, [f"No pattern is shown: their files are not in {store.path / 'uaps'}."]
    return found, [f"Not shown, because their files are not in {store.path / 'uaps'}: {', '.join(lacking)}."]
