"""Classifiers trained on generated images: sources, ensembles of GANs, the grid of experiments, its table and figures.

Slim, "Boosting generative networks for incremental learning", 2020.
"""

from __future__ import annotations

from .ensemble import METHODS, PUBLISHED_GAN, distance_sums, drawn_by, missed, sample_weights, train_ensemble
from .measures import under_uap
from .plan import SyntheticPlan
from .run import run_plan
from .source import ClassifierFilter, Source, Transform, samplers
from .training import PUBLISHED, Outcome, train_on

__all__ = [
    "METHODS",
    "PUBLISHED",
    "PUBLISHED_GAN",
    "ClassifierFilter",
    "Outcome",
    "Source",
    "SyntheticPlan",
    "Transform",
    "distance_sums",
    "drawn_by",
    "missed",
    "run_plan",
    "sample_weights",
    "samplers",
    "train_ensemble",
    "train_on",
    "under_uap",
]
