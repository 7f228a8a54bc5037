"""Crafting through defences: the expectation over transformations (Athalye et al., ICML 2018)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...defences import Defence
from ...victims import Victim


def behind(victim: Victim, defences: Sequence[Defence], draw: Callable[[], torch.Generator]) -> Victim:
    """`victim` behind one of `defences`, drawn anew for every batch from `draw()`: what any method then attacks.

    Both images and perturbed images pass, as they do in an evaluation behind a defence; codecs and roundings are
    replaced by forms that have a gradient. Weights are shared, and `victim` itself stays as it is.
    """

    def transform(x: Tensor) -> Tensor:
        generator = draw()
        chosen = defences[int(torch.randint(len(defences), (), generator=generator))]
        return chosen.crafted_through(x, generator)

    defended = copy.copy(victim)
    defended.before, defended.through = transform, [defence.name for defence in defences]
    return defended
