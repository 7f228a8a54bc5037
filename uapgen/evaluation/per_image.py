"""Attacks that see each image, as the upper reference, and the file that keeps every prediction.

An .npz: each array keeps its axes and types, numpy reads it without parsing and nothing else has to be installed. A CSV
would repeat the name of each image for every perturbation, defence and victim, or need a column for each of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError, did_you_mean
from ..perturbation import Perturbation
from ..runtime import atomic_write
from ..victims import Victim
from .results import Evaluation, Subject

ATTACKS = {"fgsm": ("linf",), "linf-pgd": ("linf",), "l2-pgd": ("l2",), "deepfool": ("linf", "l2")}
TRAVEL = 2.5  # eps that all steps of a descent go together (Madry et al., ICLR 2018): across the ball from any start


@dataclass(frozen=True)
class PerImage:
    """One foolbox attack at one bound. `uap` is the pattern that it starts from, `index` its number; None: the image
    itself.
    """

    name: str
    norm: str
    eps: float
    steps: int | None = None
    uap: Perturbation | None = None
    index: int | None = None

    def __call__(self, victim: Victim, x: Tensor, clean: Tensor) -> Tensor:
        """Adversarial images for x (B,3,H,W) in [0,1] that the victim takes for `clean` (B,), within the bound."""
        from ..interop.foolbox import as_foolbox

        with torch.enable_grad():
            _, clipped, _ = self._attack()(as_foolbox(victim), x.clone(), clean.clone(), epsilons=self.eps)
        return clipped.detach().clamp(0, 1)

    def _attack(self) -> Any:
        from foolbox import attacks

        from ..interop.foolbox import descent_from

        given: dict[str, Any] = {"steps": self.steps} if self.steps else {}
        if self.name == "fgsm":
            return attacks.LinfFastGradientAttack()
        if self.name == "deepfool":
            kind = attacks.LinfDeepFoolAttack if self.norm == "linf" else attacks.L2DeepFoolAttack
            return kind(**given)
        steps = self.steps or 40
        return descent_from(self.uap, self.norm, steps=steps, rel_stepsize=TRAVEL / steps)

    @property
    def subject(self) -> Subject:
        """What its row is about."""
        return Subject(self.name, self.norm, self.eps)


def plan_attacks(text: str, uaps: Sequence[Perturbation]) -> list[PerImage]:
    """`linf-pgd,deepfool:20`: attacks between commas, with a number of steps where one is given.

    Projected gradient descent runs once for each perturbation of its norm and starts there; the others, which take no
    start, once for each bound. Nothing is drawn at random. Raises UsageError for names that nobody has, and where no
    perturbation is of the attack's norm.
    """
    found: list[PerImage] = []
    for word in dict.fromkeys(part.strip() for part in text.split(",")):
        name, steps = parse_attack(word)
        fitting = [(index, uap) for index, uap in enumerate(uaps) if uap.norm in ATTACKS[name]]
        if not fitting:
            raise UsageError(f"--per-image {word} is bounded in {ATTACKS[name][0]}, and no perturbation here is")
        if name.endswith("pgd"):
            found += [PerImage(name, uap.norm, uap.eps, steps, uap, index) for index, uap in fitting]
        else:
            bounds = dict.fromkeys((uap.norm, uap.eps) for _, uap in fitting)
            found += [PerImage(name, norm, eps, steps) for norm, eps in bounds]
    return found


def parse_attack(word: str) -> tuple[str, int | None]:
    """The name and the number of steps of `NAME` or `NAME:STEPS`; raises UsageError."""
    name, colon, number = word.partition(":")
    if name not in ATTACKS:
        hint = did_you_mean(name, ATTACKS) or f"; expected {', '.join(ATTACKS)}"
        raise UsageError(f"no per-image attack {name!r}{hint}")
    if colon and not (number.isdigit() and int(number) > 0 and name != "fgsm"):
        raise UsageError(f"--per-image {word!r} is not NAME:STEPS; expected such as linf-pgd:40 (fgsm has one step)")
    return name, int(number) if colon else None


def write_predictions(path: Path, uaps: Sequence[Perturbation], evaluations: Sequence[Evaluation]) -> None:
    """Writes index, name (N,); label, clean (victims, N); adv (victims, uaps, N), classes int64; -1 where a label is
    unknown or an image was not read. Behind the `defences`: defended_clean (victims, defences, N) and defended_adv
    (victims, defences, uaps, N). `uaps` are hashes.

    Raises UapgenError when the file cannot be written.
    """
    found = [evaluation.predictions for evaluation in evaluations]
    files = found[0].files
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            index=np.arange(len(files)),
            name=np.array(files),
            label=np.stack([p.labels.numpy() for p in found]),
            clean=np.stack([p.clean.numpy() for p in found]),
            adv=np.stack([p.adv.numpy() for p in found]),
            defences=np.array(found[0].defences, dtype=np.str_),
            defended_clean=np.stack([p.defended_clean.numpy() for p in found]),
            defended_adv=np.stack([p.defended_adv.numpy() for p in found]),
            victims=np.array([evaluation.victim.name for evaluation in evaluations]),
            uaps=np.array([uap.sha256 for uap in uaps]),
        )
