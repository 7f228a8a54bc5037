"""Does this victim behave like a classifier whose gradients mean something?"""

from __future__ import annotations

import torch

from ..errors import UapgenError
from ..runtime import rng
from .victim import Victim

BATCH = 2


def check_victim(victim: Victim) -> list[str]:
    """Warnings, each one sentence; empty for a victim that attacks can work with. Costs two forwards and one backward.

    Looks for probabilities in place of logits, missing input gradients, and outputs that change from call to call.
    Raises UapgenError when an output is not finite.
    """
    noise = torch.rand(BATCH, *victim.input_size, generator=rng(0, "check_victim"))
    x = noise.to(victim.device).requires_grad_(victim.differentiable)
    with torch.enable_grad():
        logits = victim(x)
        gradient = _input_gradient(logits, x)
    if not torch.isfinite(logits).all():
        raise UapgenError(f"victim {victim.name} returns non-finite values; check its weights, or try --precision fp32")
    with torch.no_grad():
        logits, again = logits.detach(), victim(x)
    warnings = []
    if _are_probabilities(logits):
        warnings.append("the outputs are probabilities, not logits: losses on them saturate; remove the final softmax")
    if victim.differentiable and (gradient is None or not gradient.any()):
        warnings.append("the image gradient is zero: gradient methods cannot work; use a UAP crafted on another victim")
    elif gradient is not None and not torch.isfinite(gradient).all():
        warnings.append("the image gradient is not finite: gradient methods will fail; try --precision fp32")
    if not torch.allclose(logits, again, rtol=1e-2, atol=1e-3 * float(logits.abs().max())):
        warnings.append("two passes over one image differ: the victim is random, and its noise enters the fooling rate")
    return warnings


def _input_gradient(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """Of a random combination of the logits, so that no symmetry (rows that sum to one) can cancel it."""
    if not logits.requires_grad:
        return None
    weights = torch.randn(logits.shape, generator=rng(0, "check_victim", "loss")).to(logits.device)
    return torch.autograd.grad((logits * weights).sum(), x, allow_unused=True)[0]


def _are_probabilities(logits: torch.Tensor) -> bool:
    sums = logits.sum(1)
    return logits.shape[1] > 1 and bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
