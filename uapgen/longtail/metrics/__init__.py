"""Metrics of generated images: pure functions on features, logits and images, and the dict that states their terms."""

from __future__ import annotations

from .cas import Accuracy, classification_accuracy_score
from .class_kl import AUTHORS_SMOOTHING, class_counts, draw_histogram, kl_to_uniform, sampling_floor
from .features import ANNOTATOR, Features, annotator_features, frechet_by_half, halves
from .frechet import Moments, frechet_distance
from .inception import FidInception, load_inception
from .kid import Kid, kid, mmd2
from .ms_ssim import Similarity, ms_ssim, scales_for, within_classes
from .precision_recall import precision_recall
from .score import accuracy_figure, class_figures, distance_figures, similarity_figure

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
