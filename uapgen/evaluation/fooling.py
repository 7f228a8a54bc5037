"""The evaluation: one pass over the images serves every perturbation and the random floor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .. import distributed
from ..card import describe_environment
from ..errors import UapgenError, UsageError
from ..perturbation import Perturbation
from ..runtime import rng
from ..victims import Victim
from .caveats import find_warnings
from .images import ImageSet
from .results import UNREAD, Evaluation, Predictions, clean_accuracy, count_row, describe_data


def evaluate(
    uaps: Perturbation | Sequence[Perturbation],
    victim: Victim,
    images: ImageSet,
    *,
    batch_size: int = 32,
    seed: int = 0,
    quantize: bool = True,
    noise_floor: bool = True,
    resize: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Fooling rates, accuracies and intervals of `uaps` on `victim` over `images` (opened with `victim.transform`).

    Clean predictions are computed once per batch and shared. `noise_floor` adds one random sign pattern, the same for
    all images and fixed by `seed`, for each norm and eps. `quantize` rounds the adversarial images to 8 bits.
    Under torchrun each rank takes a share of the images and all return the same counts as one process would.

    Raises UsageError for a perturbation of another size than the victim's input unless `resize`, and UapgenError when
    more than 1% of the images cannot be read or the victim's logits are not finite.
    """
    uaps = list(uaps) if isinstance(uaps, Sequence) else [uaps]
    if not uaps:
        raise UsageError("no perturbation was given; expected at least one to evaluate")
    fitted = [_fit(uap, victim, resize) for uap in uaps]
    floors = noise_floors(fitted, seed) if noise_floor else []
    deltas = [uap.delta.to(victim.device) for uap in fitted + floors]
    started = time.perf_counter()
    loader = images.batches(
        batch_size,
        workers=workers,
        rank=distributed.rank(),
        world=distributed.world(),
        pin=victim.device.type == "cuda",
    )
    bar = tqdm(loader, victim.name, disable=None if progress and distributed.is_main() else True, unit="batch")
    predicted, corrupt = _predict(bar, victim, images, deltas, quantize)
    seconds = time.perf_counter() - started
    labels = torch.tensor(images.labels, dtype=torch.int64)
    clean, adv = predicted[0], predicted[1:]
    rows = [
        count_row(clean, row, labels, victim.num_classes, uap.card, _is_white_box(uap, victim))
        for uap, row in zip(fitted + floors, adv, strict=True)
    ]
    accuracy = clean_accuracy(clean, labels)
    return Evaluation(
        victim=victim.describe(),
        n=rows[0].n,
        clean_accuracy=accuracy,
        rows=rows[: len(uaps)],
        noise=rows[len(uaps) :],
        predictions=Predictions(images.names, labels, clean, adv[: len(uaps)]),
        data=describe_data(images, corrupt),
        quantized=quantize,
        seed=seed,
        warnings=find_warnings([uap.card for uap in uaps], victim, images, rows[0].n, accuracy, corrupt),
        seconds=seconds,
        environment=_environment(victim),
    )


def perturb(x: Tensor, delta: Tensor, quantize: bool = True) -> Tensor:
    """clip(x + delta, 0, 1) for x (B,3,H,W) in [0,1], rounded to multiples of 1/255 when `quantize`."""
    adversarial = (x + delta).clamp(0, 1)
    return (adversarial * 255).round() / 255 if quantize else adversarial


def _predict(
    batches: Any, victim: Victim, images: ImageSet, deltas: Sequence[Tensor], quantize: bool
) -> tuple[Tensor, list[tuple[int, str]]]:
    """Top-1 classes (1 + deltas, N) int64, clean first, -1 where not read; and all ranks' corrupt images."""
    # Class + 1, zero where another rank works or nothing could be read: then the sum over ranks is the whole answer.
    classes = torch.zeros(1 + len(deltas), len(images), dtype=torch.int64, device=victim.device)
    corrupt: list[tuple[int, str]] = []
    with torch.inference_mode():
        for batch in batches:
            corrupt += batch.corrupt
            images.check_corrupt(corrupt)
            if batch.images is None:
                continue
            x = batch.images.to(victim.device, non_blocking=True).float() / 255
            where = batch.positions.to(victim.device)
            classes[0, where] = _top1(victim, x) + 1
            for row, delta in enumerate(deltas, 1):
                classes[row, where] = _top1(victim, perturb(x, delta, quantize)) + 1
    gathered = sorted(entry for share in distributed.all_gather_objects(corrupt) for entry in share)
    images.check_corrupt(gathered)
    return distributed.all_sum(classes).cpu() + UNREAD, gathered


def _top1(victim: Victim, x: Tensor) -> Tensor:
    logits = victim(x)
    if not bool(torch.isfinite(logits).all()):
        raise UapgenError(
            f"victim {victim.name} returned logits that are not finite; try --precision fp32, or other weights"
        )
    return logits.argmax(1)


def _fit(uap: Perturbation, victim: Victim, resize: bool) -> Perturbation:
    h, w = victim.input_size[1:]
    if uap.size != (h, w) and not resize:
        raise UsageError(
            f"perturbation {uap.method} is {uap.size[0]}x{uap.size[1]} but victim {victim.name} takes {h}x{w}; "
            "give --resize (resize=True) to fit it, or craft one at that size"
        )
    return uap.resized((h, w))


def noise_floors(uaps: Sequence[Perturbation], seed: int) -> list[Perturbation]:
    """One random sign pattern for each (norm, eps): what a perturbation of that budget does without any craft."""
    budgets = {(uap.norm, uap.eps): uap for uap in uaps}
    floors = []
    for (norm, eps), uap in budgets.items():
        signs = torch.randint(0, 2, uap.delta.shape, generator=rng(seed, "noise floor", norm)) * 2.0 - 1
        delta = eps * (signs if norm == "linf" else signs / signs.norm())
        floor = Perturbation.create(
            delta, eps=eps, norm=norm, method={"name": "random-sign"}, data={"class": "none"}, seed=seed
        )
        floors.append(floor)
    return floors


def _is_white_box(uap: Perturbation, victim: Victim) -> bool:
    return (uap.card.get("victim") or {}).get("weights_sha256") == victim.weights_sha256


def _environment(victim: Victim) -> dict[str, Any]:
    where = {"device": str(victim.device), "precision": victim.precision, "world_size": distributed.world()}
    return {**describe_environment(), **where}
