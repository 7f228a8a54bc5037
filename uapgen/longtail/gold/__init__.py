"""GOLD: the gap of log-densities of conditional GANs, and what it is good for (Mo et al., 2019)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ...experiments.cells import Experiment, Record, failed
from ...gan.gold import conditional, deviation_ratio, generated_gap, real_gap, rejection_scale, top, unlabelled_gap
from ...tables import markdown_table, spread
from .active import Active, QueryPool, choose, learn
from .capacity import Fitting, capacity_figure, fitting_capacity, of_generator, of_set
from .experiment import STRATEGIES, run
from .networks import networks
from .plan import GoldPlan
from .rejection import Calibration, acceptance, calibrate, calibration, rejection_samples
from .training import GoldTraining, Reweighting, signed_power, train

__all__ = [
    "Active",
    "Calibration",
    "Fitting",
    "GoldPlan",
    "GoldTraining",
    "QueryPool",
    "Reweighting",
    "acceptance",
    "calibrate",
    "calibration",
    "capacity_figure",
    "choose",
    "conditional",
    "deviation_ratio",
    "fitting_capacity",
    "generated_gap",
    "learn",
    "markdown",
    "networks",
    "of_generator",
    "of_set",
    "real_gap",
    "rejection_samples",
    "rejection_scale",
    "results_of",
    "run",
    "signed_power",
    "top",
    "train",
    "unlabelled_gap",
]


HEAD = ("part", "row", "labels", "fitting capacity, %", "seeds")


def results_of(experiment: Experiment) -> list[Record]:
    """Finished records of the folder, random queries before GOLD's."""
    strategies = {name: number for number, name in enumerate(STRATEGIES)}
    good = (record for record in experiment.records() if not failed(record))
    return sorted(good, key=lambda record: strategies.get(record["row"], -1))


def markdown(records: Sequence[Record]) -> str:
    """One line a row: mean and sample standard deviation over seeds, in per cent. Validation checks are left out."""
    rows: dict[tuple[str, str, int | None], list[float]] = defaultdict(list)
    for record in records:
        if record["check"] is None:
            rows[record["part"], record["row"], record["labels"]].append(100 * record["value"])
    body = [
        [part, row, "" if labels is None else str(labels), spread(values, 2), str(len(values))]
        for (part, row, labels), values in sorted(rows.items(), key=lambda item: _order(list(rows), item[0]))
    ]
    return markdown_table(HEAD, body, left=2) + "\n"


def _order(rows: list[tuple[str, str, int | None]], row: tuple[str, str, int | None]) -> tuple[int, int, int]:
    """Parts as they came first, active learning by labels, rows as they came first."""
    parts = list(dict.fromkeys(part for part, _, _ in rows))
    return parts.index(row[0]), row[2] or 0, rows.index(row)
