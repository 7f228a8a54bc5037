"""The perturbations that results are about, as pictures, as spectra, and on images: what the victim says of each."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from PIL import Image
from torch import Tensor

from ..compare.figures import draw_spectra
from ..compare.store import Store
from ..errors import UapgenError
from ..evaluation.comparison import Comparison, DataClass, SpectrumEntry, VictimFacts
from ..evaluation.document import EvaluationDocument
from ..evaluation.fooling import perturb
from ..images.labels import IMAGENET_CLASSES, class_name
from ..images.listing import FOOLBOX
from ..images.sets import open_images
from ..perturbation import Perturbation
from ..perturbation.ball import levels
from ..perturbation.picture import LOW, amplification, low_share, pattern, radial_spectrum
from ..tables import percent
from ..victims import Victim, load_victim
from .page import Pair, Picture, Section


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


SHOWN = 6


def pairs_section(
    uap: Perturbation,
    name: str,
    recorded: VictimFacts,
    *,
    victim: str | None = None,
    images: str | Path | None = None,
    device: str = "auto",
) -> Section:
    """Six images of the folder `images` before and after `uap`, with the predictions of the victim that was measured.

    `recorded` describes that victim; `victim` says how to load it where its recorded name does not. Weights of another
    hash are not asked. Without `images`, foolbox's samples for a 1000-class victim whose weights are on this machine:
    then a section that cannot be made is a note, else it raises UapgenError.
    """
    asked = images is not None or victim is not None
    try:
        if images is None and recorded.num_classes != IMAGENET_CLASSES:
            raise UapgenError("the victim is no ImageNet classifier: --images DIR gives images to show")
        loaded = load_victim(victim or recorded.name, device=device, precision="fp32", offline=True, check=False)
        if loaded.weights_sha256 != recorded.weights_sha256:
            raise UapgenError(
                f"{loaded.name} has weights {loaded.weights_sha256[:12]} here, and {recorded.weights_sha256[:12]} "
                "were measured; --victim SPEC names the right ones"
            )
        return _section(uap, name, loaded, images or FOOLBOX)
    except UapgenError as error:
        if asked:
            raise
        return Section("Images and predictions", notes=[f"No pairs are shown: {error}"])


def _section(uap: Perturbation, name: str, victim: Victim, images: str | Path) -> Section:
    shown = open_images(images, victim, limit=SHOWN)
    pixels = [picture for _, picture in (shown[i] for i in range(len(shown))) if isinstance(picture, Tensor)]
    if not pixels:
        raise UapgenError(f"no image of {images} can be read; give others with --images")
    clean = torch.stack(pixels).to(victim.device).float() / 255
    adversarial = perturb(clean, uap.resized((clean.shape[-2], clean.shape[-1])).delta.to(victim.device))
    with torch.inference_mode():
        before, after = (victim(x).softmax(1).max(1) for x in (clean, adversarial))
    pairs = []
    for i in range(len(pixels)):
        classes = [class_name(int(found.indices[i]), victim.num_classes) for found in (before, after)]
        shares = [percent(float(found.values[i]), 0) for found in (before, after)]
        changed = bool(before.indices[i] != after.indices[i])
        pairs.append(
            Pair(
                _picture(clean[i], f"Image {i + 1} as it is", f"clean: {classes[0]}, {shares[0]}%"),
                _picture(adversarial[i], f"Image {i + 1} with the pattern", f"with it: {classes[1]}, {shares[1]}%"),
                changed,
            )
        )
    moved = sum(pair.changed for pair in pairs)
    text = (
        f"{len(pairs)} images of {images} without and with {name}, and what {victim.name} says of each (top class and "
        f"its probability): {moved} change. A sample to look at, no measurement."
    )
    return Section("Images and predictions", [text], pairs=pairs)


def _picture(x: Tensor, words: str, caption: str) -> Picture:
    png = as_png((x * 255).round().to("cpu", torch.uint8))
    return Picture(png, f"{words}; the victim sees {caption.split(': ', 1)[1]}.", caption)
