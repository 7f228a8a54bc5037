"""Victims: frozen classifiers that take pixels in [0,1] and own their normalisation."""

from __future__ import annotations

from .ensemble import Ensemble
from .hooks import Cost
from .load import announce, check_victim, load_victim
from .spec import split_specs
from .victim import Preprocessing, Probe, Victim

__all__ = [
    "Cost",
    "Ensemble",
    "Preprocessing",
    "Probe",
    "Victim",
    "announce",
    "check_victim",
    "load_victim",
    "split_specs",
]
