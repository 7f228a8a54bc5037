"""Metrics of generated images: pure functions on features, logits and images, and the dict that states their terms."""

from __future__ import annotations

from .class_kl import AUTHORS_SMOOTHING, class_counts, draw_histogram, kl_to_uniform, sampling_floor
from .distances import Kid, Moments, frechet_distance, kid, mmd2, precision_recall
from .features import ANNOTATOR, Features, annotator_features, frechet_by_half, halves
from .inception import FidInception, load_inception
from .ms_ssim import Similarity, ms_ssim, scales_for, within_classes
from .score import (
    Accuracy,
    accuracy_figure,
    class_figures,
    classification_accuracy_score,
    distance_figures,
    similarity_figure,
)

__all__ = [
    "ANNOTATOR",
    "AUTHORS_SMOOTHING",
    "Accuracy",
    "Features",
    "FidInception",
    "Kid",
    "Moments",
    "Similarity",
    "accuracy_figure",
    "annotator_features",
    "class_counts",
    "class_figures",
    "classification_accuracy_score",
    "distance_figures",
    "draw_histogram",
    "frechet_by_half",
    "frechet_distance",
    "halves",
    "kid",
    "kl_to_uniform",
    "load_inception",
    "mmd2",
    "ms_ssim",
    "precision_recall",
    "sampling_floor",
    "scales_for",
    "similarity_figure",
    "within_classes",
]
