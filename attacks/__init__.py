"""Crafting methods, one file each; `craft` runs any of them and returns a Perturbation."""

from __future__ import annotations

from . import (  # noqa: F401 (importing a method registers it)
    aaa,
    at_uap,
    cbgan,
    cosine_uap,
    df_uap,
    dm_uap,
    fff,
    fg_uap,
    gap,
    gd_uap,
    nag,
    noise,
    pd_ua,
    pnm_uap,
    psp_uap,
    sga,
    sgd_uap,
    spgd,
    sv_uap,
    trm_uap,
    uap,
)
from .core.craft import carry_out, craft
from .core.method import Method, Parameter, find_method, methods, register
from .core.plan import BUDGETS, CraftPlan, check_craft, check_sharing, parse_budget
from .core.run import Crafting

__all__ = [
    "BUDGETS",
    "CraftPlan",
    "Crafting",
    "Method",
    "Parameter",
    "carry_out",
    "check_craft",
    "check_sharing",
    "craft",
    "find_method",
    "methods",
    "parse_budget",
    "register",
]
