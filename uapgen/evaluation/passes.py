"""One pass over the images: top-1 classes of every view, and what is counted behind a defence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import distributed
from ..defences import Defence
from ..errors import UapgenError
from ..images.sets import Batch, ImageSet
from ..victims import Victim
from .intervals import Rate
from .per_image import PerImage
from .results import UNREAD, Defended, Predictions, Subject, clean_accuracy, count_row
from .resume import Ledger


@dataclass(frozen=True)
class Layout:
    """Which row of a class matrix is what: the clean image and the image with each of `patterns`, the same through each
    of `defences`, then what each of `references`, the attacks that see each image, makes of it.
    """

    patterns: int
    defences: int = 0
    references: int = 0

    @property
    def views(self) -> int:
        """Rows without a defence, and behind each: the clean image, and one a pattern."""
        return 1 + self.patterns

    @property
    def rows(self) -> int:
        return self.views * (1 + self.defences) + self.references

    def view(self, pattern: int | None, defence: int | None = None) -> int:
        """The row of an image with `pattern` (None: clean), behind `defence` (None: none); both count from 0."""
        first = 0 if defence is None else (1 + defence) * self.views
        return first + (0 if pattern is None else 1 + pattern)

    def reference(self, number: int) -> int:
        """The row of an attack that sees each image."""
        return self.views * (1 + self.defences) + number


@dataclass(frozen=True)
class ClassMatrix:
    """Top-1 classes (rows, N) int64 of every view of every image, -1 where the image was not read."""

    classes: Tensor
    layout: Layout

    def clean(self, defence: int | None = None) -> Tensor:
        """(N,) of the clean images, behind `defence` (None: none)."""
        return self.classes[self.layout.view(None, defence)]

    def adv(self, pattern: int, defence: int | None = None) -> Tensor:
        """(N,) of the images with `pattern`, behind `defence`."""
        return self.classes[self.layout.view(pattern, defence)]

    def reference(self, number: int) -> Tensor:
        """(N,) of what attack `number` made of the images."""
        return self.classes[self.layout.reference(number)]

    def predictions(self, images: ImageSet, labels: Tensor, own: int, defences: Sequence[str]) -> Predictions:
        """What is kept of it: the first `own` patterns, without and behind each of `defences` (their names)."""
        n, behind = len(images), range(self.layout.defences)
        return Predictions(
            images.names,
            labels,
            self.clean(),
            _stack([self.adv(i) for i in range(own)], (own, n)),
            list(defences),
            _stack([self.clean(d) for d in behind], (len(behind), n)),
            _stack([self.adv(i, d) for d in behind for i in range(own)], (len(behind), own, n)),
        )


def _stack(rows: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    return torch.stack(rows).view(shape) if rows else torch.empty(shape, dtype=torch.int64)


@dataclass(frozen=True)
class Looks:
    """What the victim is shown of each image: clean and with each of `deltas`, the same through each of `defences`, and
    what each of `attacks` makes of the image.
    """

    deltas: Sequence[Tensor]
    defences: Sequence[Defence] = ()
    attacks: Sequence[PerImage] = ()
    quantize: bool = True
    seed: int = 0

    @property
    def layout(self) -> Layout:
        return Layout(len(self.deltas), len(self.defences), len(self.attacks))

    def classes(self, victim: Victim, x: Tensor, positions: Sequence[int]) -> Tensor:
        """Top-1 classes (rows, B) int64 for clean images x (B,3,H,W) in [0,1] at `positions` of their set."""
        layout = self.layout
        found = torch.empty(layout.rows, len(x), dtype=torch.int64, device=x.device)
        with torch.inference_mode():
            for pattern in (None, *range(len(self.deltas))):
                shown = x if pattern is None else perturb(x, self.deltas[pattern], self.quantize)
                found[layout.view(pattern)] = top1(victim, shown)
                for number, defence in enumerate(self.defences):
                    found[layout.view(pattern, number)] = top1(victim, defence(shown, positions, self.seed))
        for number, attack in enumerate(self.attacks):
            adversarial = attack(victim, x, found[layout.view(None)])
            with torch.inference_mode():
                shown = round_to_bytes(adversarial) if self.quantize else adversarial
                found[layout.reference(number)] = top1(victim, shown)
        return found


def predict(
    batches: Iterable[Batch], looks: Looks, victim: Victim, images: ImageSet, ledger: Ledger
) -> tuple[ClassMatrix, list[tuple[int, str]]]:
    """Top-1 classes of all ranks, and all ranks' corrupt images.

    Raises UapgenError, naming the images, when the victim raises; when a decoding process dies; and for broken images.
    """
    for batch in _delivered(batches):
        ledger.add(_classes(batch, looks, victim, images), batch.positions, batch.corrupt)
        images.check_corrupt(ledger.corrupt)
    ledger.save()
    gathered = sorted({tuple(entry) for share in distributed.all_gather_objects(ledger.corrupt) for entry in share})
    images.check_corrupt(gathered)
    whole = distributed.all_sum(ledger.held.to(victim.device)).cpu() + UNREAD
    return ClassMatrix(whole, looks.layout), gathered


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
        return torch.empty(looks.layout.rows, 0, dtype=torch.int64)
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
    matrix: ClassMatrix,
    defence: int,
    labels: Tensor,
    num_classes: int,
    subjects: Sequence[Subject],
    own: int,
) -> Defended:
    """Counts behind defence number `defence`; the first `own` of `subjects` are perturbations, the others floors."""
    clean, behind = matrix.clean(), matrix.clean(defence)
    read = clean != UNREAD
    n = int(read.sum())
    rows = [
        count_row(behind, matrix.adv(i, defence), labels, num_classes, subject) for i, subject in enumerate(subjects)
    ]
    return Defended(
        name=name,
        changed=_differing(clean, behind, read, n),
        clean_accuracy=clean_accuracy(behind, labels),
        rows=rows[:own],
        undefended=[_differing(clean, matrix.adv(i, defence), read, n) for i in range(own)],
        noise=rows[own:],
    )


def _differing(a: Tensor, b: Tensor, read: Tensor, n: int) -> Rate:
    return Rate(int(((a != b) & read).sum()), n)
