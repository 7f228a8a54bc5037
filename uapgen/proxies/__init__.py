"""Where crafting images come from: sources that need no data, and folders that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..errors import UsageError, did_you_mean
from ..images.decode import centre_crop
from ..perturbation.card import DATA_CLASSES
from .base import DeltaCrops, Mixture, Pool, ProxySource, combined_class
from .dead_leaves import DeadLeaves
from .folder import Folder
from .priors import GaussianPrior, JigsawPrior
from .procedural import ColouredBlocks, PinkNoise, Procedural

__all__ = [
    "DATA_CLASSES",
    "ColouredBlocks",
    "DeadLeaves",
    "DeltaCrops",
    "Folder",
    "GaussianPrior",
    "JigsawPrior",
    "Mixture",
    "PinkNoise",
    "Pool",
    "Procedural",
    "ProxySource",
    "combined_class",
    "parse_source",
]

SPECS = ("procedural", "dead-leaves", "blocks", "pink-noise", "jigsaw", "gaussian", "folder:DIR", "driven:DIR")


def parse_source(
    spec: str,
    size: int | tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    transform: Callable[[Any], torch.Tensor] | None = None,
) -> ProxySource:
    """The source that `spec` names, see SPECS; `driven:DIR` is a folder of images of the victim's own domain.

    `transform` is for folders (`victim.transform`); without it the shorter side is resized and the centre cropped.
    Raises UsageError for a spec that is not known.
    """
    name, _, path = spec.partition(":")
    match name, bool(path):
        case "procedural", False:
            return Procedural(size, device)
        case "dead-leaves", False:
            return DeadLeaves(size, device)
        case "blocks", False:
            return ColouredBlocks(size, device)
        case "pink-noise", False:
            return PinkNoise(size, device)
        case "jigsaw", False:
            return JigsawPrior(size, device)
        case "gaussian", False:
            return GaussianPrior(size, device)
        case (("folder" | "driven"), True):
            data_class = "driven" if name == "driven" else "proxy"
            return Folder(path, transform or centre_crop(size), data_class=data_class, device=device)
    near = did_you_mean(name, [known.partition(":")[0] for known in SPECS])
    raise UsageError(f"proxy source {spec!r} is unknown; expected one of {', '.join(SPECS)}{near}")
