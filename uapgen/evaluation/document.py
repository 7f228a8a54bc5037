"""The results of an evaluation as a document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ..errors import UapgenError
from ..perturbation.card import Card
from ..schema import FLAT, LARGEST, SOURCE, Range
from .comparison import VictimFacts
from .intervals import Rate

EVALUATION: Literal["uapgen.evaluation/1"] = "uapgen.evaluation/1"
Levels = Annotated[float, Range(0, LARGEST, "levels of 255, from 0 on")]


@dataclass(frozen=True)
class PatternEntry:
    """A perturbation that was measured: its file, the hash of its delta, its card."""

    file: str
    sha256: str
    card: Card


@dataclass(frozen=True)
class CorruptEntry:
    """An image that could not be read, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class ImagesEntry:
    """The images: how many, how many have labels, the hash of their list, and which could not be read."""

    path: str
    images: int
    labelled: int
    list_sha256: str
    corrupt: tuple[CorruptEntry, ...] = ()
    table: dict[str, Any] = field(default_factory=dict, metadata=SOURCE, repr=False, compare=False)


@dataclass(frozen=True)
class VictimEntry:
    """A victim, its preprocessing in words, and what was measured of it without any perturbation."""

    about: VictimFacts = field(metadata=FLAT)
    transform: str
    n: int
    clean_accuracy: Rate | None
    data: ImagesEntry
    environment: dict[str, Any]
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ClassEntry:
    """A class that perturbed images go to: its number, its name, and the share of all images."""

    number: int = field(metadata={"key": "class"})
    name: str
    rate: Rate = field(metadata=FLAT)


@dataclass(frozen=True)
class RowEntry:
    """One perturbation (number `uap` of the list) on one victim. Rates without labels or target are null."""

    uap: int | None
    file: str | None
    method: str
    norm: str
    eps: Annotated[float, Range(0, LARGEST, "a bound in pixel units")]
    eps_255: Levels
    victim: str
    victim_weights_sha256: str
    white_box: bool
    n: int
    fooling_rate: Rate
    clean_accuracy: Rate | None
    adversarial_accuracy: Rate | None
    success_on_correct: Rate | None
    targeted: Rate | None
    targeted_excluding_class: Rate | None
    noise_floor: Rate | None
    dominant_classes: tuple[ClassEntry, ...]

    @property
    def victim_key(self) -> tuple[str, str]:
        """Name and hash of its victim: two victims of one name may differ in their weights."""
        return self.victim, self.victim_weights_sha256


@dataclass(frozen=True)
class DefendedEntry:
    """A row behind a defence, with the two figures that only a defence has."""

    defence: str
    row: RowEntry = field(metadata=FLAT)
    fooling_rate_vs_undefended: Rate | None
    moved_by_defence: Rate | None


@dataclass(frozen=True)
class ReferenceEntry:
    """The row of an attack that sees each image, and its steps."""

    row: RowEntry = field(metadata=FLAT)
    steps: int | None


@dataclass(frozen=True)
class EvaluationDocument:
    """What `uapgen evaluate --json` writes: perturbations on victims, with counts, rates in [0,1] and intervals."""

    schema: Literal["uapgen.evaluation/1"]
    uapgen: str
    command: str | None
    complete: bool
    data: str
    quantized: bool
    seed: int | None
    uaps: tuple[PatternEntry, ...]
    victims: tuple[VictimEntry, ...]
    rows: tuple[RowEntry, ...]
    noise_floor: tuple[RowEntry, ...] = ()
    defences: tuple[DefendedEntry, ...] = ()
    per_image: tuple[ReferenceEntry, ...] = ()
    warnings: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises UapgenError for rows of perturbations or victims that are not listed."""
        victims = {victim.about.key for victim in self.victims}
        for row in (*self.rows, *(entry.row for entry in self.defences)):
            if row.uap is None or not 0 <= row.uap < len(self.uaps) or row.victim_key not in victims:
                raise UapgenError(f"a row of {row.method} on {row.victim} is of no listed perturbation or victim")

    def all_rows(self) -> list[tuple[str, RowEntry]]:
        """Every row with its defence: plain ones first (defence "none"), then those behind one."""
        behind = [(entry.defence, entry.row) for entry in self.defences if entry.defence != "none"]
        return [*(("none", row) for row in self.rows), *behind]

    def pattern(self, row: RowEntry) -> PatternEntry:
        """What `row` is about."""
        assert row.uap is not None
        return self.uaps[row.uap]

    def victim(self, row: RowEntry) -> VictimEntry:
        """What `row` was measured on."""
        return next(victim for victim in self.victims if victim.about.key == row.victim_key)
