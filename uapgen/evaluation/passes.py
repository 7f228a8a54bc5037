"""One pass over the images: top-1 classes of every view, and what is counted behind a defence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..defences import Defence
from ..errors import UapgenError
from ..images.sets import Batch, ImageSet
from ..victims import Victim
from .intervals import Rate
from .per_image import PerImage
from .results import UNREAD, Defended, clean_accuracy, count_row
from .resume import Ledger


@dataclass(frozen=True)
class Looks:
    """What the victim is shown of each image, in the order of the rows of the class matrix.

    First the clean image and the image with each of `deltas`, then the same through each of `defences`, then what each
    of `attacks` makes of the image.
    """

    deltas: Sequence[Tensor]
    defences: Sequence[Defence] = ()
    attacks: Sequence[PerImage] = ()
    quantize: bool = True
    seed: int = 0

    @property
    def views(self) -> int:
        return 1 + len(self.deltas)

    @property
    def rows(self) -> int:
        return self.views * (1 + len(self.defences)) + len(self.attacks)

    def classes(self, victim: Victim, x: Tensor, positions: Sequence[int]) -> Tensor:
        """Top-1 classes (rows, B) int64 for clean images x (B,3,H,W) in [0,1] at `positions` of their set."""
        found = torch.empty(self.rows, len(x), dtype=torch.int64, device=x.device)
        with torch.inference_mode():
            for view in range(self.views):
                shown = x if view == 0 else perturb(x, self.deltas[view - 1], self.quantize)
                found[view] = top1(victim, shown)
                for number, defence in enumerate(self.defences, 1):
                    found[number * self.views + view] = top1(victim, defence(shown, positions, self.seed))
        first = self.rows - len(self.attacks)
        for row, attack in enumerate(self.attacks, first):
            adversarial = attack(victim, x, found[0])
            with torch.inference_mode():
                found[row] = top1(victim, round_to_bytes(adversarial) if self.quantize else adversarial)
        return found


def predict(
    batches: Iterable[Batch], looks: Looks, victim: Victim, images: ImageSet, ledger: Ledger
) -> tuple[Tensor, list[tuple[int, str]]]:
    """Top-1 classes (rows, N) int64 of all ranks, -1 where not read; and all ranks' corrupt images.

    Raises UapgenError, naming the images, when the victim raises; when a decoding process dies; and for broken images.
    """
    for batch in _delivered(batches):
        ledger.add(_classes(batch, looks, victim, images), batch.positions, batch.corrupt)
        images.check_corrupt(ledger.corrupt)
    ledger.save()
    gathered = sorted({tuple(entry) for share in distributed.all_gather_objects(ledger.corrupt) for entry in share})
    images.check_corrupt(gathered)
    return distributed.all_sum(ledger.held.to(victim.device)).cpu() + UNREAD, gathered


def _delivered(batches: Iterable[Batch]) -> Iterator[Batch]:
    try:
        yield from batches
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UapgenError(
            "a process that decodes images died, perhaps because memory ran out; try fewer --workers, or --workers 0"
        ) from error


def _classes(batch: Batch, looks: Looks, victim: Victim, images: ImageSet) -> Tensor:
    """(rows, B) for the images of a batch that could be read."""
    if batch.images is None:
        return torch.empty(looks.rows, 0, dtype=torch.int64)
    positions = batch.positions.tolist()
    try:
        return looks.classes(victim, batch.images.to(victim.device, non_blocking=True).float() / 255, positions)
    except UapgenError:
        raise
    except Exception as error:  # whatever the victim's module raises, or a defence of the user's
        reason = (str(error).splitlines() or [""])[0]
        raise UapgenError(
            f"{victim.name} raised {type(error).__name__} ({reason}) on images {images.names[positions[0]]} to "
            f"{images.names[positions[-1]]}; a smaller --batch-size helps where memory ran out"
        ) from error


def perturb(x: Tensor, delta: Tensor, quantize: bool = True) -> Tensor:
    """clip(x + delta, 0, 1) for x (B,3,H,W) in [0,1], rounded to multiples of 1/255 when `quantize`."""
    adversarial = (x + delta).clamp(0, 1)
    return round_to_bytes(adversarial) if quantize else adversarial


def round_to_bytes(x: Tensor) -> Tensor:
    """Images in [0,1] at multiples of 1/255."""
    return (x * 255).round() / 255


def top1(victim: Victim, x: Tensor) -> Tensor:
    """Classes (B,) int64. Raises UapgenError for logits that are not finite."""
    logits = victim(x)
    if not bool(torch.isfinite(logits).all()):
        raise UapgenError(
            f"victim {victim.name} returned logits that are not finite; try --precision fp32, or other weights"
        )
    return logits.argmax(1)


def count_defended(
    name: str,
    clean: Tensor,
    behind: Tensor,
    labels: Tensor,
    num_classes: int,
    cards: Sequence[Mapping[str, Any]],
    white: Sequence[bool],
    own: int,
) -> Defended:
    """Counts of one defence from classes: `clean` (N,) without it; `behind` (1 + patterns, N) with it, clean first.

    `cards` and `white` belong to the patterns, of which the first `own` are perturbations and the others random floors.
    """
    read = clean != UNREAD
    n = int(read.sum())
    rows = [
        count_row(behind[0], adv, labels, num_classes, card, box)
        for adv, card, box in zip(behind[1:], cards, white, strict=True)
    ]
    return Defended(
        name=name,
        changed=_differing(clean, behind[0], read, n),
        clean_accuracy=clean_accuracy(behind[0], labels),
        rows=rows[:own],
        undefended=[_differing(clean, adv, read, n) for adv in behind[1 : 1 + own]],
        noise=rows[own:],
    )


def _differing(a: Tensor, b: Tensor, read: Tensor, n: int) -> Rate:
    return Rate(int(((a != b) & read).sum()), n)
