"""What `uapgen gan classify` runs: a TOML file, checked, and the cells that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ...errors import UsageError, did_you_mean
from ..classifier.recipe import Recipe
from ..gan_recipe import GanRecipe
from .ensemble import METHODS, PUBLISHED_GAN, UNCONDITIONED, check_labels
from .source import check_shares
from .training import PUBLISHED

MODES = ("fixed", "on-the-fly")
TRICKS = ("transform", "filter", "truncation")


@dataclass(frozen=True)
class ClassifierCell:
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


def sources(cells: Iterable[ClassifierCell]) -> list[ClassifierCell]:
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


@dataclass(frozen=True)
class Grid:
    """Table 1 of the report: every mode with every combination of tricks, of `psi`, `threshold` and `pad`.

    tries: see `ClassifierFilter`.
    """

    modes: tuple[str, ...] = MODES
    tricks: tuple[str, ...] = ("none", "transform", "filter", "truncation", "transform+filter", "+".join(TRICKS))
    psi: float = 1.5
    threshold: float = 0.9
    tries: int = 50
    pad: int = 4

    def check(self) -> None:
        """Raises UsageError for modes and tricks that there are not."""
        _require("mode", self.modes, MODES)
        for text in self.tricks:
            parse_tricks(text)


@dataclass(frozen=True)
class Ensembles:
    """Table 3: `sizes` with every weighting, on the fly with `tricks`; `shares`, one for each generator, are further
    rows of the conditioned ones.
    """

    sizes: tuple[int, ...] = (1, 2, 3)
    methods: tuple[str, ...] = (UNCONDITIONED, *METHODS)
    tricks: str = "transform+filter"
    shares: tuple[tuple[float, ...], ...] = ()

    def check(self) -> None:
        """Raises UsageError for sizes, weightings, tricks and shares that cannot be."""
        _require("weighting", self.methods, (UNCONDITIONED, *METHODS))
        parse_tricks(self.tricks)
        if any(size < 1 for size in self.sizes):
            raise UsageError(f"sizes {self.sizes}; expected sizes from 1 on")
        for shares in self.shares:
            check_shares(shares, len(shares))


@dataclass(frozen=True)
class Samples:
    """How much of each source the metrics see: `images` for the Fréchet distance, `pairs` a class for MS-SSIM;
    `figure` images of each of `figure_classes` classes for the t-SNE.
    """

    images: int = 5000
    pairs: int = 200
    figure: int = 256
    figure_classes: int = 5


@dataclass(frozen=True)
class SyntheticPlan:
    """Everything that decides the numbers. data, root, num_classes: see `load_data`; test: the test part, where `data`
    is a path. images: of a fixed set, and of an epoch on the fly; 0: as many as real.
    """

    SCHEMA: ClassVar[str] = "uapgen.classify-plan/1"

    data: str = "cifar10"
    test: str | None = None
    size: int = 32
    root: str | None = None
    num_classes: int | None = None
    seeds: tuple[int, ...] = (0,)
    images: int = 0
    gan: GanRecipe = PUBLISHED_GAN
    classifier: Recipe = PUBLISHED
    grid: Grid = Grid()
    ensembles: Ensembles = Ensembles()
    samples: Samples = Samples()

    def cells(self) -> list[ClassifierCell]:
        """All cells, each once."""
        found = [ClassifierCell(mode, parse_tricks(text)) for mode in self.grid.modes for text in self.grid.tricks]
        tricks = parse_tricks(self.ensembles.tricks)
        for size in self.ensembles.sizes:
            for method in self.ensembles.methods if size > 1 else (UNCONDITIONED,):
                found.append(ClassifierCell("on-the-fly", tricks, size, method))
                extra = [s for s in self.ensembles.shares if len(s) == size and method != UNCONDITIONED]
                found += [ClassifierCell("on-the-fly", tricks, size, method, shares) for shares in extra]
        return list(dict.fromkeys(found))

    def check(self) -> None:
        """Raises UsageError for a plan without seeds or cells, and for generators without labels."""
        check_labels(self.gan)
        if not self.seeds:
            raise UsageError(f"seeds {self.seeds}; expected a seed")
        if not self.cells():
            raise UsageError("the plan asks for nothing; give grid.modes and grid.tricks, or ensembles.sizes")


def _require(what: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"{what} {name!r} is unknown{did_you_mean(name, known)}; expected {', '.join(known)}")
