"""GOLD: the gap of log-densities of conditional GANs, and what it is good for (Mo et al., 2019)."""

from __future__ import annotations

from ...gan.gold import (
    conditional,
    deviation_ratio,
    generated_gap,
    real_gap,
    rejection_scale,
    top,
    unlabelled_gap,
)
from .active import Active, QueryPool, choose, learn
from .capacity import Fitting, capacity_figure, fitting_capacity, of_generator, of_set
from .experiment import run
from .networks import networks
from .plan import GoldPlan
from .rejection import Calibration, acceptance, calibrate, calibration, rejection_samples
from .table import markdown, results_of
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
