"""What `uapgen gan gold` is to measure, from a TOML file: one section for each part, checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ...errors import UsageError
from .active import Active
from .capacity import Fitting
from .networks import Kind, networks
from .rejection import check_percentile
from .training import GoldTraining


@dataclass(frozen=True)
class GoldData:
    """spec: blobs, or what `load_data` takes. test: another spec for the test part, where `spec` is a path.

    resize: pixels of the training images, out of which windows of 32 are cut. test_only: the test part is used for
    training too, as the paper does with LSUN. points: of either part of the blobs.
    """

    spec: str
    test: str = ""
    resize: int = 32
    test_only: bool = False
    points: int = 1000


@dataclass(frozen=True)
class GoldNetworks:
    """See `networks`."""

    kind: Kind
    width: int = 64
    latent_dim: int = 100

    def check(self) -> None:
        networks(self.kind, width=self.width, latent_dim=self.latent_dim)


@dataclass(frozen=True)
class Rejection:
    """One row for each of `percentiles`; `per_class` samples are accepted, `calibration` ones set w and M."""

    percentiles: tuple[float, ...]
    per_class: int = 5000
    batch: int = 100
    calibration: int = 50_000
    tries: int = 10_000

    def check(self) -> None:
        """Raises UsageError for percentiles outside 0..100 and for numbers below 1."""
        for percentile in self.percentiles:
            check_percentile(percentile)
        if min(self.per_class, self.batch, self.calibration, self.tries) < 1:
            raise UsageError(f"rejection sampling with {self}; expected positive numbers")


@dataclass(frozen=True)
class GoldPlan:
    """A whole experiment; a part without its section is not run."""

    SCHEMA: ClassVar[str] = "uapgen.gold-plan/1"

    data: GoldData
    networks: GoldNetworks
    training: GoldTraining
    fitting: Fitting = field(default_factory=Fitting)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    reweighting: bool = True
    rejection: Rejection | None = None
    active: Active | None = None

    def check(self) -> None:
        """Raises UsageError without seeds, and for networks that do not go with the data."""
        if not self.seeds:
            raise UsageError(f"seeds {self.seeds}; expected at least one")
        if (self.data.spec == "blobs") != (self.networks.kind == "points"):
            raise UsageError(f"data {self.data.spec!r} does not go with networks {self.networks.kind!r}")
