"""The evaluation: one pass over the images serves every perturbation, defence and the random floor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from .. import distributed
from ..defences import NONE, Defence
from ..errors import UsageError
from ..images.sets import ImageSet
from ..perturbation import Perturbation
from ..perturbation.card import OPEN, describe_environment
from ..runtime import rng
from ..schema import make
from ..victims import Victim
from .comparison import VictimFacts
from .passes import ClassMatrix, Looks, count_defended, perturb, predict
from .per_image import plan_attacks
from .results import Evaluation, Reference, Subject, clean_accuracy, count_row, describe_data, find_warnings
from .resume import Ledger, Session

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
    workers: int | None = None,
    session: Session | None = None,
) -> Evaluation:
    """Fooling rates, accuracies and intervals of `uaps` on `victim` over `images` (opened with `victim.transform`).

    Clean predictions are computed once per batch and shared. `noise_floor` adds one random sign pattern, the same for
    all images and fixed by `seed`, for each norm and eps. `quantize` rounds the adversarial images to 8 bits.
    `defences` (of `parse_defences`) repeats everything behind each of them. `per_image` names foolbox attacks that see
    each image, such as "linf-pgd,deepfool": what a universal pattern could reach at most. A `session` with a folder
    keeps predictions there as they come, and the same call goes on after an interruption.
    Under torchrun each rank takes a share of the images and all return the same counts as one process would.

    Raises UsageError for a perturbation of another size than the victim's input unless `resize`, and UapgenError when
    more than 1% of the images cannot be read or the victim's logits are not finite.
    """
    uaps, session = list(uaps) if isinstance(uaps, Sequence) else [uaps], session or Session()
    if not uaps:
        raise UsageError("no perturbation was given; expected at least one to evaluate")
    defences = [defence for defence in defences if defence.name != NONE]  # that is measured in any case
    fitted = [_fit(uap, victim, resize) for uap in uaps]
    patterns = fitted + (noise_floors(fitted, seed) if noise_floor else [])
    attacks = plan_attacks(per_image, fitted) if per_image else []
    looks = Looks([uap.delta.to(victim.device) for uap in patterns], defences, attacks, quantize, seed)
    started = time.perf_counter()
    kept = session.open(victim.name, _identity(victim, images, patterns, looks))
    ledger = Ledger(looks.layout.rows, len(images), kept)
    matrix, corrupt = _look(looks, victim, images, ledger, batch_size, workers, session.progress)
    seconds = time.perf_counter() - started
    own, classes = len(uaps), victim.num_classes
    labels, clean = torch.tensor(images.labels, dtype=torch.int64), matrix.clean()
    subjects = [Subject.of(uap.facts, victim.weights_sha256) for uap in patterns]
    rows = [count_row(clean, matrix.adv(i), labels, classes, subject) for i, subject in enumerate(subjects)]
    accuracy = clean_accuracy(clean, labels)
    return Evaluation(
        victim=make(VictimFacts, victim.describe(), "the victim", rules=OPEN),
        n=rows[0].n,
        clean_accuracy=accuracy,
        rows=rows[:own],
        noise=rows[own:],
        predictions=matrix.predictions(images, labels, own, [defence.name for defence in defences]),
        data=describe_data(images, corrupt),
        quantized=quantize,
        seed=seed,
        warnings=find_warnings([uap.card for uap in uaps], victim, images, rows[0].n, accuracy, corrupt),
        seconds=seconds,
        environment=_environment(victim),
        defended=[
            count_defended(defence.name, matrix, number, labels, classes, subjects, own)
            for number, defence in enumerate(defences)
        ],
        references=[
            Reference(a.index, a.steps, count_row(clean, matrix.reference(i), labels, classes, a.subject))
            for i, a in enumerate(attacks)
        ],
    )


def _look(
    looks: Looks,
    victim: Victim,
    images: ImageSet,
    ledger: Ledger,
    batch_size: int,
    workers: int | None,
    progress: bool,
) -> tuple[ClassMatrix, list[tuple[int, str]]]:
    """This rank's share of the pass over what is missing, and the whole of all ranks'."""
    loader = images.batches(
        batch_size,
        workers=workers,
        rank=distributed.rank(),
        world=distributed.world(),
        pin=victim.device.type == "cuda",
        positions=ledger.missing,
    )
    bar = tqdm(loader, victim.name, disable=None if progress and distributed.is_main() else True, unit="batch")
    return predict(bar, looks, victim, images, ledger)


def _identity(victim: Victim, images: ImageSet, patterns: Sequence[Perturbation], looks: Looks) -> dict[str, Any]:
    """What decides the predictions that are kept."""
    return {
        "victim": victim.describe(),
        "precision": victim.precision,
        "images": images.list_sha256,
        "uaps": [uap.sha256 for uap in patterns],
        "defences": [defence.name for defence in looks.defences],
        "per_image": [[attack.name, attack.norm, attack.eps, attack.steps, attack.index] for attack in looks.attacks],
        "quantize": looks.quantize,
        "seed": looks.seed,
    }


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


def _environment(victim: Victim) -> dict[str, Any]:
    where = {"device": str(victim.device), "precision": victim.precision, "world_size": distributed.world()}
    return {**describe_environment(), **where}
