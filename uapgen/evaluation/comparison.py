"""The results of a comparison as a document, and what both kinds of results say of a victim."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ..schema import FLAT, LARGEST, SOURCE, Range
from .intervals import Rate

COMPARISON: Literal["uapgen.comparison/1"] = "uapgen.comparison/1"
DataClass = Literal["none", "proxy", "driven", "unknown"]


@dataclass(frozen=True)
class VictimFacts:
    """A victim as `Victim.describe` gives it: everything that another person needs to have the same one."""

    name: str
    weights_sha256: str
    num_classes: int
    input_size: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    weights: str | None
    weights_source: str | None
    licence: str | None
    preprocessing_from: str | None
    table: dict[str, Any] = field(default_factory=dict, metadata=SOURCE, repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        """Name and hash: two victims of one name may differ in their weights."""
        return self.name, self.weights_sha256


@dataclass(frozen=True)
class FolderEntry:
    """A folder of images: the path that the user gave, how many, and the hash of their names and sizes."""

    path: str
    images: int
    sha256: str


@dataclass(frozen=True)
class ComparedVictim:
    """A victim, the precision that it was crafted in, and what was measured of it; null where nothing was."""

    about: VictimFacts = field(metadata=FLAT)
    precision: str | None
    n: int | None
    floor: Rate | None
    clean_accuracy: Rate | None


@dataclass(frozen=True)
class SeedsEntry:
    """Mean and sample standard deviation (null for one seed) over seeds, and Wilson's 95% interval of the mean."""

    mean: float
    std: float | None
    ci95: tuple[float, ...]


@dataclass(frozen=True)
class OthersEntry:
    """Fooling rates on the other victims: their mean, and each."""

    mean: float | None
    victims: dict[str, float | None]


@dataclass(frozen=True)
class MethodRow:
    """A method crafted on `crafted_on` (null: imported) and measured on `victim`; all shares are in [0,1]."""

    method: str
    victim: str
    crafted_on: str | None
    data_class: DataClass
    seeds: tuple[int | None, ...]
    rates: tuple[float, ...]
    n: int
    fooling_rate: SeedsEntry
    floor: float | None
    targeted: float | None
    transfer: OthersEntry
    image_gradients: float | None
    seconds: float | None
    below_28: float | None


@dataclass(frozen=True)
class TransferRow:
    """What was crafted (by which method, on which victim), and its fooling rates on each victim of the matrix."""

    method: str
    crafted_on: str | None
    rates: tuple[float | None, ...]


@dataclass(frozen=True)
class Transfer:
    """Fooling rates in [0,1], means over seeds: crafted down, measured across."""

    victims: tuple[str, ...]
    rows: tuple[TransferRow, ...]


@dataclass(frozen=True)
class CurveEntry:
    """Fooling rates of a pattern on its way, over the image-gradients spent, on `n` images."""

    uap: str
    victim: str
    n: int
    method: str
    seed: int | None
    data_class: DataClass
    image_gradients: tuple[int, ...]
    rates: tuple[float, ...]


@dataclass(frozen=True)
class SpectrumEntry:
    """Shares of a pattern's power by radius in cycles per image; `size` is (H,W), `below_28` the share below 28."""

    method: str
    uap: str
    data_class: DataClass
    size: tuple[int, ...]
    below_28: float
    cycles_per_image: tuple[int, ...]
    share: tuple[float, ...]


@dataclass(frozen=True)
class FailedPart:
    """A craft, a cell or a curve that raised an error, which the others did not wait for."""

    uap: str
    title: str
    error: str


@dataclass(frozen=True)
class FailedLine:
    """A line of cells.jsonl: which part of a perturbation's work failed, and on which victim."""

    what: FailedPart = field(metadata=FLAT)
    part: str
    victim: str | None


@dataclass(frozen=True)
class CellEntry:
    """One perturbation on one victim, with counts."""

    uap: str
    sha256: str
    method: str
    crafted_on: str | None
    seed: int | None
    data_class: DataClass
    image_gradients: int | None
    seconds: float | None
    below_28: float | None
    victim: str
    white_box: bool
    n: int
    fooling_rate: Rate
    adversarial_accuracy: Rate | None
    targeted: Rate | None
    floor: Rate | None
    clean_accuracy: Rate | None
    resized: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurvePoint:
    """After how many image-gradients a pattern changed how many of `n` images."""

    image_gradients: int
    changed: int
    n: int


@dataclass(frozen=True)
class CurveLine:
    """A line of curves.jsonl: a pattern on its way, measured on `images` images of `victim`."""

    uap: str
    sha256: str
    victim: str
    images: int
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Comparison:
    """What `uapgen compare` leaves in results.json: methods side by side, at one bound and one budget."""

    schema: Literal["uapgen.comparison/1"]
    uapgen: str
    command: str | None
    complete: bool
    eps: Annotated[float, Range(0, LARGEST, "a bound in pixel units")]
    norm: str
    budget: int
    data: FolderEntry
    train_data: FolderEntry | None
    eps_255: Annotated[float, Range(0, LARGEST, "levels of 255, from 0 on")]
    quantized: bool
    victims: dict[str, ComparedVictim]
    crafted_on: tuple[str, ...]
    rows: tuple[MethodRow, ...]
    transfer: Transfer
    curves: tuple[CurveEntry, ...]
    spectra: tuple[SpectrumEntry, ...]
    failed: tuple[FailedPart, ...]
    warnings: tuple[str, ...]
    cells: tuple[CellEntry, ...]

    def rows_of(self, victim: str) -> list[MethodRow]:
        """What was measured on `victim`, as its table is ordered."""
        return [row for row in self.rows if row.victim == victim]
