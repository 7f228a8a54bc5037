"""Victims: frozen classifiers that take pixels in [0,1] and own their normalisation."""

from __future__ import annotations

from .checks import check_victim
from .load import announce, load_victim
from .victim import Preprocessing, Probe, Victim

__all__ = ["Preprocessing", "Probe", "Victim", "announce", "check_victim", "load_victim"]
