"""Honest evaluation: which images, which predictions change, and how sure that is."""

from __future__ import annotations

from .fooling import evaluate
from .images import ImageSet, open_images
from .intervals import Rate
from .results import DEFINITIONS, Evaluation, Row

__all__ = ["DEFINITIONS", "Evaluation", "ImageSet", "Rate", "Row", "evaluate", "open_images"]
