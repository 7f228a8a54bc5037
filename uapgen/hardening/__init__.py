"""Victims made harder to fool: universal adversarial training, its result as a weights file, and what it changed."""

from __future__ import annotations

from .attack import Settings
from .outcome import FILE, measure, reload_spec, render, save_weights, to_json
from .training import Hardened, harden

__all__ = ["FILE", "Hardened", "Settings", "harden", "measure", "reload_spec", "render", "save_weights", "to_json"]
