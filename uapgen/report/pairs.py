"""Images without and with a pattern, and what the victim says of each."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import UapgenError
from ..evaluation.comparison import VictimFacts
from ..evaluation.fooling import perturb
from ..images.labels import IMAGENET_CLASSES, class_name
from ..images.listing import FOOLBOX
from ..images.sets import open_images
from ..perturbation import Perturbation
from ..tables import percent
from ..victims import Victim, load_victim
from .page import Pair, Picture, Section
from .pictures import as_png

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
