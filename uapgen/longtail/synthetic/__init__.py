"""Classifiers trained on generated images: sources, ensembles of GANs, the grid of experiments, its table and figures.

Slim, "Boosting generative networks for incremental learning", 2020.
"""

from __future__ import annotations

from .ensemble import PUBLISHED_GAN, drawn_by, missed, train_ensemble
from .filtering import ClassifierFilter
from .plan import Plan
from .robustness import under_uap
from .run import run_plan
from .sampling import Sample, sampler, truncated_latents
from .source import Source, Transform
from .training import PUBLISHED, Outcome, train_on
from .weights import METHODS, distance_sums, sample_weights

__all__ = [
    "METHODS",
    "PUBLISHED",
    "PUBLISHED_GAN",
    "ClassifierFilter",
    "Outcome",
    "Plan",
    "Sample",
    "Source",
    "Transform",
    "distance_sums",
    "drawn_by",
    "missed",
    "run_plan",
    "sample_weights",
    "sampler",
    "train_ensemble",
    "train_on",
    "truncated_latents",
    "under_uap",
]
