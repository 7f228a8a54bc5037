"""The evaluation: one pass over the images serves every perturbation, defence and the random floor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from tqdm import tqdm

from .. import distributed
from ..defences import NONE, Defence
from ..errors import UsageError
from ..images.sets import ImageSet
from ..perturbation import Perturbation
from ..perturbation.card import describe_environment
from ..runfolder import RunFolder
from ..runtime import rng
from ..victims import Victim
from .passes import Looks, count_defended, perturb, predict
from .per_image import PerImage, plan_attacks
from .results import Evaluation, Predictions, Reference, clean_accuracy, count_row, describe_data
from .resume import Ledger
from .warnings import find_warnings

__all__ = ["evaluate", "noise_floors", "perturb"]


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
    defences: Sequence[Defence] = (),
    per_image: str | None = None,
    folder: str | Path | None = None,
    restart: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Fooling rates, accuracies and intervals of `uaps` on `victim` over `images` (opened with `victim.transform`).

    Clean predictions are computed once per batch and shared. `noise_floor` adds one random sign pattern, the same for
    all images and fixed by `seed`, for each norm and eps. `quantize` rounds the adversarial images to 8 bits.
    `defences` (of `parse_defences`) repeats everything behind each of them. `per_image` names foolbox attacks that see
    each image, such as "linf-pgd,deepfool": what a universal pattern could reach at most. With a `folder` predictions
    are kept there as they come, and the same call goes on after an interruption.
    Under torchrun each rank takes a share of the images and all return the same counts as one process would.

    Raises UsageError for a perturbation of another size than the victim's input unless `resize`, and UapgenError when
    more than 1% of the images cannot be read or the victim's logits are not finite.
    """
    uaps = list(uaps) if isinstance(uaps, Sequence) else [uaps]
    if not uaps:
        raise UsageError("no perturbation was given; expected at least one to evaluate")
    defences = [defence for defence in defences if defence.name != NONE]  # that is measured in any case
    fitted = [_fit(uap, victim, resize) for uap in uaps]
    floors = noise_floors(fitted, seed) if noise_floor else []
    attacks = plan_attacks(per_image, fitted) if per_image else []
    deltas = [uap.delta.to(victim.device) for uap in fitted + floors]
    looks = Looks(deltas, defences, attacks, quantize, seed)
    started = time.perf_counter()
    held = _folder(folder, victim, images, fitted + floors, looks, restart) if folder else None
    ledger = Ledger(looks.rows, len(images), held)
    loader = images.batches(
        batch_size,
        workers=workers,
        rank=distributed.rank(),
        world=distributed.world(),
        pin=victim.device.type == "cuda",
        positions=ledger.missing,
    )
    bar = tqdm(loader, victim.name, disable=None if progress and distributed.is_main() else True, unit="batch")
    classes, corrupt = predict(bar, looks, victim, images, ledger)
    seconds = time.perf_counter() - started
    labels = torch.tensor(images.labels, dtype=torch.int64)
    by_defence = classes[: looks.views * (1 + len(defences))].view(1 + len(defences), looks.views, -1)
    clean, adv, own = by_defence[0, 0], by_defence[0, 1:], len(uaps)
    white = [_is_white_box(uap, victim) for uap in fitted] + [False] * len(floors)
    cards = [uap.card for uap in fitted + floors]
    rows = [
        count_row(clean, row, labels, victim.num_classes, card, box)
        for row, card, box in zip(adv, cards, white, strict=True)
    ]
    accuracy = clean_accuracy(clean, labels)
    return Evaluation(
        victim=victim.describe(),
        n=rows[0].n,
        clean_accuracy=accuracy,
        rows=rows[:own],
        noise=rows[own:],
        predictions=Predictions(
            images.names,
            labels,
            clean,
            adv[:own],
            [defence.name for defence in defences],
            by_defence[1:, 0],
            by_defence[1:, 1 : 1 + own],
        ),
        data=describe_data(images, corrupt),
        quantized=quantize,
        seed=seed,
        warnings=find_warnings([uap.card for uap in uaps], victim, images, rows[0].n, accuracy, corrupt),
        seconds=seconds,
        environment=_environment(victim),
        defended=[
            count_defended(defence.name, clean, behind, labels, victim.num_classes, cards, white, own)
            for defence, behind in zip(defences, by_defence[1:], strict=True)
        ],
        references=[
            _reference(attack, clean, row, labels, victim.num_classes)
            for attack, row in zip(attacks, classes[looks.rows - len(attacks) :], strict=True)
        ],
    )


def _reference(
    attack: PerImage, clean: torch.Tensor, adv: torch.Tensor, labels: torch.Tensor, num_classes: int
) -> Reference:
    return Reference(attack.index, attack.steps, count_row(clean, adv, labels, num_classes, attack.card()))


def _folder(
    folder: str | Path,
    victim: Victim,
    images: ImageSet,
    patterns: Sequence[Perturbation],
    looks: Looks,
    restart: bool,
) -> RunFolder:
    """Where this victim's predictions are kept; predictions of anything else are refused."""
    options = {
        "victim": victim.describe(),
        "precision": victim.precision,
        "images": images.list_sha256,
        "uaps": [uap.sha256 for uap in patterns],
        "defences": [defence.name for defence in looks.defences],
        "per_image": [[attack.name, attack.norm, attack.eps, attack.steps, attack.index] for attack in looks.attacks],
        "quantize": looks.quantize,
        "seed": looks.seed,
    }
    path = Path(folder) / quote(victim.name, safe="")
    held = RunFolder(path, options, restart=restart) if distributed.is_main() else None
    distributed.all_gather_objects(None)  # the others look after the main rank has made or emptied it
    return held or RunFolder(path, options)


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
    origin = uap.card.get("victim") or {}
    crafted_on = [origin, *(origin.get("members") or [])]  # members: of an ensemble
    return any(isinstance(e, dict) and e.get("weights_sha256") == victim.weights_sha256 for e in crafted_on)


def _environment(victim: Victim) -> dict[str, Any]:
    where = {"device": str(victim.device), "precision": victim.precision, "world_size": distributed.world()}
    return {**describe_environment(), **where}
