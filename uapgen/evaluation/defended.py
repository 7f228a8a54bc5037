"""Counting behind a defence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .intervals import Rate
from .results import UNREAD, Defended, clean_accuracy, count_row


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
