"""What stands between a measured rate and a claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..images.sets import ImageSet
from ..victims import Victim
from .intervals import Rate

FEW_IMAGES = 1000


def find_warnings(
    cards: Sequence[dict[str, Any]],
    victim: Victim,
    images: ImageSet,
    n: int,
    accuracy: Rate | None,
    corrupt: Sequence[tuple[int, str]],
) -> list[str]:
    """What a reader should know before believing the rates of `n` images; `corrupt` holds (position, reason)."""
    found = [*(f"{victim.name}: {text}" for text in victim.warnings), *images.notes]
    if victim.weights == "random":
        found.append(f"{victim.name} has random weights: its rates say nothing about any trained model")
    if n < FEW_IMAGES:
        low, high = Rate(n // 2, n).ci95
        found.append(f"n = {n} is below {FEW_IMAGES}: a rate near 50% is known to +-{50 * (high - low):.0f} points")
    if corrupt:
        found.append(f"{len(corrupt)} images could not be read and were left out, first {images.names[corrupt[0][0]]}")
    if accuracy is not None and accuracy.ci95[0] <= 1 / victim.num_classes:
        found.append(f"clean accuracy {accuracy}% is not above chance: do the labels belong to this victim?")
    return found + [text for card in cards for text in _overlap(card, images)]


def _overlap(card: dict[str, Any], images: ImageSet) -> list[str]:
    if images.made_on(card["data"].get("sources")):
        return [f"{card['method']['name']} was crafted on images of this very folder: its rates are training rates"]
    return []
