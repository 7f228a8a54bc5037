"""Long-tailed generation: imbalanced data, classifiers in the loop and annotators."""

from __future__ import annotations

from ..victims.trained import load_classifier
from .classifier import train_classifier
from .classifier.recipe import Recipe
from .data import LabelledImages, long_tailed, long_tailed_counts
from .sources import load_data

__all__ = [
    "LabelledImages",
    "Recipe",
    "load_classifier",
    "load_data",
    "long_tailed",
    "long_tailed_counts",
    "train_classifier",
]
