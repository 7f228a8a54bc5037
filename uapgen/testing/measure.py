"""The measurement under `assert_robust`: any model, any images, given or freshly crafted perturbations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import craft
from ..errors import UapgenError, UsageError
from ..evaluation import Evaluation, evaluate
from ..images.sets import ImageSet, open_images, spread
from ..perturbation import Perturbation
from ..perturbation.ball import LINF_TOLERANCE
from ..runtime import tensor_sha256
from ..victims import Preprocessing, Victim, load_victim


@dataclass(frozen=True)
class TensorImages(ImageSet):
    """Images that are in memory already: `pixels` (N,3,H,W) uint8."""

    pixels: Tensor = field(default_factory=lambda: torch.empty(0))

    def __getitem__(self, position: int) -> tuple[int, Tensor | str]:
        return position, self.pixels[position]


def measure(
    model: Victim | nn.Module | str,
    images: Tensor | str | Path,
    uaps: Sequence[Perturbation | str | Path],
    *,
    eps: float,
    crafting: dict[str, Any],
    preprocessing: Preprocessing | None,
    limit: int | None,
    device: str,
    folder: str | Path | None,
) -> tuple[Evaluation, str]:
    """The evaluation, and a word on where its perturbations came from. Arguments as in `assert_robust`."""
    victim = _victim(model, preprocessing, device)
    shown = _images(images, victim, limit)
    if uaps:
        loaded = [uap if isinstance(uap, Perturbation) else Perturbation.load(uap) for uap in uaps]
        for uap in loaded:
            if uap.norm != "linf" or uap.eps > eps + LINF_TOLERANCE:
                made = f"{uap.norm} {uap.eps * 255:.4g}/255"
                raise UsageError(f"{uap.method} was made for {made}, and the test is at linf {eps * 255:.4g}/255")
        return evaluate(loaded, victim, shown, resize=True, workers=0), f"{len(loaded)} given perturbations"
    words = f"crafted with {crafting['method']}, budget {crafting['budget']}, seed {crafting['seed']}"
    uap = _crafted(victim, eps, crafting, Path(folder) if folder else None)
    return evaluate(uap, victim, shown, workers=0), words


def _victim(model: Victim | nn.Module | str, preprocessing: Preprocessing | None, device: str) -> Victim:
    if isinstance(model, Victim):
        return model
    if isinstance(model, str):
        return load_victim(model, device=device, precision="fp32")
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}; expected nn.Module, Victim or a victim's spec")
    name = type(model).__name__
    try:
        return Victim(model, name=name, preprocessing=preprocessing, device=device, precision="fp32")
    except (RuntimeError, ValueError, TypeError) as error:  # whatever a forward pass of the user's module raises
        size = (preprocessing or Preprocessing()).input_size
        raise UapgenError(
            f"{name} cannot run on an image {size}: {error}; give preprocessing=Preprocessing(...)"
        ) from error


def _images(images: Tensor | str | Path, victim: Victim, limit: int | None) -> ImageSet:
    if not isinstance(images, Tensor):
        return open_images(images, victim.transform, num_classes=victim.num_classes, limit=limit)
    if images.ndim != 4 or tuple(images.shape[1:]) != victim.input_size or len(images) == 0:
        size = "x".join(map(str, victim.input_size))
        raise UsageError(f"images have shape {tuple(images.shape)}; expected (N,3,H,W) with N > 0 and {size}")
    if images.is_floating_point():
        low, high = float(images.min()), float(images.max())
        if not -1e-4 <= low <= high <= 1 + 1e-4:  # also refuses nan
            raise UsageError(f"images are in [{low:.4g}, {high:.4g}]; expected [0,1]: normalisation is the model's own")
        images = (images * 255).round().clamp(0, 255)
    pixels = images.detach().cpu().to(torch.uint8)[spread(len(images), limit)]
    names = [str(position) for position in range(len(pixels))]
    note = "images were given as a tensor: labels unknown, fooling rates only"
    return TensorImages(Path("memory"), names, [-1] * len(pixels), _whole, (note,), tensor_sha256(pixels), pixels)


def _whole(image: Tensor) -> Tensor:
    return image


def _crafted(victim: Victim, eps: float, crafting: dict[str, Any], folder: Path | None) -> Perturbation:
    """From `folder`, if an equal one was crafted before: same victim, bound, method, budget, seed and parameters."""
    if folder is None:
        return craft(victim, eps=eps, **crafting)
    what = {"victim": victim.describe(), "precision": victim.precision, "eps": eps, **crafting}
    key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:20]
    file = folder / f"{crafting['method']}-{key}.safetensors"
    if file.is_file():
        try:
            return Perturbation.load(file)
        except UapgenError:
            file.unlink()  # a cache: damaged files are made again
    made = craft(victim, eps=eps, **crafting)
    made.save(file)
    return made
