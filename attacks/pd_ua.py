"""PD-UA: prior-driven uncertainty approximation (Liu et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..proxies import PinkNoise
from ..victims import Probe, Victim
from .core.curricula import shown
from .core.layerwise import background, first, layer_names, need_layers
from .core.method import above, at_least, register, within
from .core.optimise import gradient_of, optimise
from .core.plan import CraftPlan
from .core.run import Crafting
from .core.steps import random_start


class MomentumStep:
    """delta - lr * sign(m), m <- momentum * m + gradient / mean |gradient|; `lr` in pixel units (L-inf)."""

    def __init__(self, lr: float, momentum: float) -> None:
        self.lr, self.momentum = lr, momentum
        self._mean: Tensor | None = None

    def __call__(self, delta: Tensor, gradient: Tensor) -> Tensor:
        unit = gradient / gradient.abs().mean().clamp_min(1e-30)
        self._mean = unit if self._mean is None else self.momentum * self._mean + unit
        return delta - self.lr * self._mean.sign()

    def tensors(self) -> dict[str, Tensor]:
        return {} if self._mean is None else {"momentum": self._mean}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self._mean = tensors.get("momentum")


def _check(plan: CraftPlan) -> None:
    if plan.source is not None:
        raise UsageError("pd-ua looks at delta alone and reads no image; leave the images out")
    need_layers(plan)


@register("pd-ua", paper="Liu et al., ICCV 2019", year=2019, shares=False, check=_check)
def pd_ua(
    run: Crafting,
    *,
    samples: Annotated[int, at_least(2, at_most=1000), "copies of delta a step; fewer where the budget is small"] = 10,
    dropout: Annotated[float, within(0, 1, low_open=True, high_open=True), "share of the channels that drops"] = 0.1,
    style_share: Annotated[float, within(0, 1), "share of the budget that goes into the texture"] = 0.05,
    levels: Annotated[int, at_least(1, at_most=16), "octaves of the gradient's pyramid"] = 4,
    momentum: Annotated[float, within(0, 1), "how much of the past a step keeps"] = 0.9,
    step: Annotated[float, above(0, at_most=2), "length of a step, in eps"] = 0.1,
    normalise: Annotated[bool, "feed what is evaluated, not the raw input of the public code"] = True,
) -> Tensor:
    """Raises the victim's uncertainty about delta alone, from a start that has the style of a texture.

    (a) Texture: a uniform start is moved towards the Gram matrices (first half of the layers) that a repeated patch of
    1/f noise has at full contrast; takes `style_share` of the budget, one image-gradient a step.
    (b) Uncertainty: Monte-Carlo dropout at rate `dropout` on every layer's output, in `samples` copies of delta a step;
    the loss is -log of the variance over the copies, summed over a layer and averaged over layers.
    (c) The gradient is split into a Laplacian pyramid of `levels` octaves, each scaled to the same strength, and moves
    delta by `step` * eps along the sign of its running sum with `momentum`.

    A reconstruction: the parts are the paper's, while its constants and its texture were not at hand. Choices made
    here: all of the defaults; a procedural texture; whole channels that drop, so that few random numbers serve a step;
    a variance that takes in what the dropout of earlier layers leads to.
    Budgets below 1,000 take fewer `samples`, for 100 steps.
    """
    victim = run.victim
    names = layer_names(victim)
    still = background(victim, normalise)
    samples = max(2, min(samples, run.budget // 100))
    delta = _textured(run, int(style_share * run.budget), step * run.eps)

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        key = int(torch.randint(0, 2**62, (1,), generator=generator))

        def loss(d: Tensor) -> Tensor:
            x = shown(victim, (still + d).expand(samples, -1, -1, -1), normalise)
            return -log_uncertainty(dropped_probe(victim, x, names, dropout, key).layers)

        towards, value = gradient_of(run, loss, delta)
        return laplacian_normalised(towards, levels), {"loss": value}

    images = run.budget - run.cost.image_gradients
    return optimise(run, "pd", gradient, delta=delta, step=MomentumStep(step * run.eps, momentum), images=images)


def log_uncertainty(layers: Sequence[Tensor]) -> Tensor:
    """Mean over layers of log(1/2 sum of the variances of its activations over the samples (T,...))."""
    variances = [a.float().var(0, unbiased=False).sum() for a in layers]
    return torch.stack([(0.5 * v + 1e-9).log() for v in variances]).mean()


def dropped_probe(victim: Victim, x: Tensor, names: Sequence[str], rate: float, seed: int) -> Probe:
    """`victim.probe(x, names)` with whole channels of every named layer dropped at `rate`, for each image of its own;
    the same masks for the same `seed`.
    """
    generator = torch.Generator().manual_seed(seed)

    def drop(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        tensor = output[0] if isinstance(output, tuple) else output
        channels = 1 if tensor.ndim == 4 else tensor.ndim - 1
        shape = [n if axis in (0, channels) else 1 for axis, n in enumerate(tensor.shape)]
        mask = ((torch.rand(shape, generator=generator) >= rate) / (1 - rate)).to(tensor)
        return (tensor * mask, *output[1:]) if isinstance(output, tuple) else tensor * mask

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(victim.module.get_submodule(name).register_forward_hook(drop).remove)
        return victim.probe(x, layers=names)


def _textured(run: Crafting, images: int, size: float) -> Tensor:
    """A random start, moved by `images` image-gradients towards the Gram matrices of a tiled texture (1,C,H,W)."""
    victim = run.victim
    start = random_start(victim.input_size, run.eps, run.rng("start"))
    if not images:
        return start
    names = first(layer_names(victim), 0.5)
    with torch.no_grad():
        wanted = [gram(a) for a in victim.probe(_texture(run), layers=names).layers]
    still = background(victim, True)

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        def loss(d: Tensor) -> Tensor:
            layers = victim.probe((still + d).clamp(0, 1), layers=names).layers
            apart = [(gram(a) - g).square().sum() / g.square().sum() for a, g in zip(layers, wanted, strict=True)]
            return torch.stack(apart).mean()

        towards, value = gradient_of(run, loss, delta)
        return towards, {"style": value}

    return optimise(run, "style", gradient, delta=start, step=MomentumStep(size, 0.9), images=images)


def gram(a: Tensor) -> Tensor:
    """Channel correlations (C,C) of one image's activations (1,C,H,W), or (1,N,C) for tokens."""
    rows = a.float().flatten(2)[0] if a.ndim == 4 else a.float().flatten(0, -2).T
    return rows @ rows.T / rows.shape[1]


def _texture(run: Crafting) -> Tensor:
    """One patch of 1/f noise, repeated eight times per axis: (1,3,H,W) in [0,1]."""
    h, w = run.victim.input_size[1:]
    patch = PinkNoise((max(8, h // 8), max(8, w // 8)), run.victim.device).batch(1, run.rng("texture"))
    return patch.repeat(1, 1, -(-h // patch.shape[2]), -(-w // patch.shape[3]))[..., :h, :w]


BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def laplacian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """At most `levels` bands of x (B,C,H,W), finest first, each half as wide as the one before; the last is what is
    left. Levels that would be smaller than 2 pixels are left out.
    """
    bands: list[Tensor] = []
    while len(bands) < levels - 1 and min(x.shape[-2:]) >= 4:
        coarse = _smooth(x)[..., ::2, ::2]
        bands.append(x - _enlarged(coarse, x))
        x = coarse
    return [*bands, x]


def collapsed(bands: Sequence[Tensor]) -> Tensor:
    """The image of which `bands` are the Laplacian pyramid."""
    x = bands[-1]
    for band in reversed(bands[:-1]):
        x = _enlarged(x, band) + band
    return x


def laplacian_normalised(gradient: Tensor, levels: int) -> Tensor:
    """gradient (1,C,H,W) with every band of its pyramid scaled to a root mean square of 1."""
    return collapsed([b / b.square().mean().sqrt().clamp_min(1e-30) for b in laplacian_pyramid(gradient, levels)])


def _smooth(x: Tensor) -> Tensor:
    row = torch.tensor(BINOMIAL, device=x.device, dtype=x.dtype) / sum(BINOMIAL)
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 5, 5)
    return functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def _enlarged(coarse: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)
