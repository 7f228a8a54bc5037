"""The measurement under `assert_robust`: any model, any images, given or freshly crafted perturbations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..attacks import craft
from ..errors import UapgenError, UsageError
from ..evaluation import Evaluation, evaluate
from ..images.sets import open_images
from ..perturbation import Perturbation
from ..perturbation.ball import LINF_TOLERANCE
from ..victims import Preprocessing, Victim, load_victim


def measure(
    model: Victim | nn.Module | str,
    images: Any,
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
    shown = open_images(images, victim, limit=limit)
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
