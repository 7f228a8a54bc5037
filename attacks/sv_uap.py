"""SV-UAP: the singular vector of an early layer's Jacobian (Khrulkov and Oseledets, CVPR 2018)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..errors import UnfitVictimError, did_you_mean
from ..victims import Victim
from .core.losses import affordable
from .core.method import above, at_least, register, within
from .core.optimise import repeat
from .core.plan import CraftPlan
from .core.run import Crafting
from .core.steps import random_start, steepest

Map = Callable[[Tensor], Tensor]


class _Reached(Exception):
    """The layer has its output; the rest of the forward pass is not needed."""


def layer_map(victim: Victim, layer: str | None) -> Map:
    """x (B,3,H,W) in [0,1] -> the output of `layer`, computed no further than that; None: the logits. In fp32: autocast
    does not go with forward-mode products.
    """
    victim = victim.counted(None)
    victim.precision = "fp32"
    if layer is None:
        return victim

    def forward(x: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple, output: Any) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        hook = victim.module.get_submodule(layer).register_forward_hook(keep)
        try:
            victim(x)
        except _Reached:
            return seen[0].float()
        finally:
            hook.remove()
        raise AssertionError(f"{layer} takes no part in the forward pass")

    return forward


def dual_power(values: Tensor, p: float) -> Tensor:
    """sign(y) |y|^(p-1), the vector that attains the p-norm of y up to scale (Boyd, 1974)."""
    return values.sign() * values.abs() ** (p - 1)


def pull_back(f: Map, images: Tensor, pattern: Tensor, q: float, chunk: int) -> tuple[Tensor, float]:
    """J^T psi_q(J v) up to a positive factor, and the largest |J v|, for J the Jacobians of `f` at images (B,3,H,W).

    `chunk` images at a time: what is kept does not grow with B. Each chunk is scaled by its largest entry, because the
    9th power of a float leaves its range, and brought to the common scale afterwards.
    """
    total, largest = torch.zeros_like(pattern), 0.0
    for x in images.split(chunk):
        tangent = pattern.expand_as(x).contiguous()
        with warnings.catch_warnings():  # torch's forward-mode rules still use torch.jit.script
            warnings.simplefilter("ignore", FutureWarning)
            moved: Tensor = torch.func.jvp(f, (x,), (tangent,))[1]
        scale = max(moved.abs().max().item(), 1e-30)
        back = torch.func.vjp(f, x)[1]
        part = back(dual_power(moved / scale, q))[0].sum(0, keepdim=True)
        common = max(scale, largest)
        total = total * (largest / common) ** (q - 1) + part * (scale / common) ** (q - 1)
        largest = common
    return total, largest


class _Vector:
    def __init__(self, pattern: Tensor) -> None:
        self.pattern, self.moved = pattern, 2.0

    def tensors(self) -> dict[str, Tensor]:
        return {"pattern": self.pattern, "moved": torch.tensor(self.moved, dtype=torch.float64)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.pattern, self.moved = tensors["pattern"], tensors["moved"].item()


def _check(plan: CraftPlan) -> None:
    known = [name for name, _ in plan.victim.module.named_modules() if name]
    layer = str(plan.params["layer"])
    if layer and layer not in known:
        raise UnfitVictimError(f"{plan.victim.name} has no layer {layer!r}{did_you_mean(layer, known)}")


@register(
    "sv-uap",
    paper="Khrulkov and Oseledets, CVPR 2018",
    year=2018,
    images="driven",
    norms=("linf", "l2"),
    shares=False,
    check=_check,
)
def sv_uap(
    run: Crafting,
    *,
    batch: Annotated[int, at_least(1, at_most=10_000), "images in all; fewer where the budget is small"] = 64,
    layer: Annotated[str, "the layer's name; empty: by depth"] = "",
    depth: Annotated[float, within(0, 1), "place of the layer, as a share of the layers"] = 0.2,
    q: Annotated[float, above(1, at_most=1000), "norm of the layer's output"] = 10.0,
    chunk: Annotated[int, at_least(1, at_most=10_000), "images at a time; decides memory only"] = 8,
    tolerance: Annotated[float, at_least(0, at_most=2), "ends when a step turns v by less, 1 - cosine"] = 1e-4,
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the images shrink for them"] = 20,
) -> Tensor:
    """The unit pattern v (in L-inf, or L2) for which ||J v||_q is largest, by Boyd's power method, times eps.

    J stacks the Jacobians of one layer at `batch` fixed images: `layer` by name, or the one at the share `depth` of
    the victim's layers. A product with J and one with its transpose count as 2 image-gradients an image, although they
    go no further than the layer. `batch` shrinks where the budget would not allow `min_steps` iterations; ends when an
    iteration turns v by less than `tolerance` (1 - cosine). v and -v are equal in this: the one that changes more
    predictions on the crafting images is returned.
    """
    assert run.source is not None
    name = _choose(run.victim, layer, depth)
    run.cost.read([name] if name else [])
    f = layer_map(run.victim, name)
    images = run.source.batch(affordable(batch, run.budget, 2 * min_steps), run.rng("sv-images"))
    start = random_start(run.victim.input_size, 1.0, run.rng("start"), run.norm).to(run.victim.device)
    state = _Vector(steepest(run.tied(start), run.norm))

    def advance(_: torch.Generator) -> dict[str, Any]:
        towards, largest = pull_back(f, images, state.pattern, q, chunk)
        run.cost.back_propagated(len(images), passes=2)  # no hook sees a product with J: it is no backward pass
        turned = steepest(run.tied(towards), run.norm)
        state.moved = 1 - torch.cosine_similarity(turned.flatten(), state.pattern.flatten(), 0).item()
        state.pattern = turned
        run.snapshot(run.eps * turned)
        return {"gain": round(largest, 6), "moved": round(state.moved, 6)}

    repeat(run, "sv", state, advance, run.budget, lambda: state.moved < tolerance)
    if state.moved < tolerance:
        run.stopped = "converged"
    return _signed(run, run.eps * state.pattern, images, chunk)


def _choose(victim: Victim, layer: str, depth: float) -> str | None:
    names = victim.layers()
    return layer or (names[min(int(depth * len(names)), len(names) - 1)] if names else None)


def _signed(run: Crafting, delta: Tensor, images: Tensor, chunk: int) -> Tensor:
    """`delta` or -`delta`, whichever changes more predictions; where that is equal, whichever moves logits further."""
    scores = []
    with run.one_draw(), torch.no_grad():
        clean = torch.cat([run.victim(x) for x in images.split(chunk)])
        for one in (delta, -delta):
            logits = torch.cat([run.victim((x + one).clamp(0, 1)) for x in images.split(chunk)])
            changed = (logits.argmax(1) != clean.argmax(1)).float().mean().item()
            scores.append((changed, (logits - clean).norm().item()))
    run.notes["signs"] = [round(changed, 4) for changed, _ in scores]
    return delta if scores[0] >= scores[1] else -delta
