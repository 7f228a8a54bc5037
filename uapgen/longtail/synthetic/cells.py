"""The cells of the experiment: how the images are made that a classifier is trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import UsageError
from .ensemble import UNCONDITIONED

MODES = ("fixed", "on-the-fly")
TRICKS = ("transform", "filter", "truncation")


@dataclass(frozen=True)
class Cell:
    """One way of making the images that a classifier is trained on."""

    mode: str
    tricks: tuple[str, ...]
    members: int = 1
    method: str = UNCONDITIONED
    shares: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """`on-the-fly, transform+filter`, `on-the-fly, transform+filter, 2 GANs B, shares 0.75/0.25`."""
        return ", ".join([self.mode, "+".join(self.tricks) or "none", *self._ensemble()])

    @property
    def source(self) -> str:
        """What is sampled from, before transformations and filter: `1 GAN, truncated`, `2 GANs B`."""
        return ", ".join([*(self._ensemble() or ["1 GAN"]), *(["truncated"] if "truncation" in self.tricks else [])])

    def _ensemble(self) -> list[str]:
        gans = [f"{self.members} GANs {self.method}"] if self.members > 1 else []
        return gans + (["shares " + "/".join(f"{share:g}" for share in self.shares)] if self.shares else [])


def sources(cells: Iterable[Cell]) -> list[Cell]:
    """A cell for each source that `cells` sample from, without transformations and filter, each once."""
    plain = (
        dataclasses.replace(cell, mode="fixed", tricks=tuple(trick for trick in cell.tricks if trick == "truncation"))
        for cell in cells
    )
    return list(dict.fromkeys(plain))


def parse_tricks(text: str) -> tuple[str, ...]:
    """`none`, or tricks joined by +, in the order in which they are listed above. Raises UsageError for others."""
    given = [] if text == "none" else text.split("+")
    if any(trick not in TRICKS for trick in given):
        raise UsageError(f"tricks {text!r} are unknown; expected none, or {', '.join(TRICKS)} joined by +")
    return tuple(trick for trick in TRICKS if trick in given)
