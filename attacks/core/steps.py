"""How a gradient moves delta: tiles, steepest and Adam steps, Adam that halves a pattern at rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ...perturbation.ball import project


def random_start(size: tuple[int, int, int], eps: float, generator: torch.Generator, norm: str = "linf") -> Tensor:
    """A random delta (1,C,H,W): uniform in the L-inf ball, or a random direction of half the L2 radius."""
    noise = torch.rand(1, *size, generator=generator) * 2 - 1
    return noise * eps if norm == "linf" else noise * (0.5 * eps / noise.flatten().norm())


def tie(pattern: Tensor, tiles: int) -> Tensor:
    """`pattern` (B,C,H,W) replaced by the mean of its tiles x tiles equal parts, repeated: TSC-UAP's constraint.

    Applied to the start and to every gradient it keeps delta tiled.
    Both sides must be multiples of `tiles`.
    """
    if tiles == 1:
        return pattern
    b, c, h, w = pattern.shape
    parts = pattern.reshape(b, c, tiles, h // tiles, tiles, w // tiles)
    return parts.mean((2, 4)).repeat(1, 1, tiles, tiles)


def saturation(delta: Tensor, eps: float) -> float:
    """Share of pixels at the L-inf bound."""
    return (delta.abs() >= eps - 1e-7).float().mean().item()


class Step(Protocol):
    """A step rule: where to go from `delta` given the gradient of a loss to be minimised; `lr`, in pixel units, may be
    set between steps.
    """

    lr: float

    def __call__(self, delta: Tensor, gradient: Tensor) -> Tensor: ...

    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: dict[str, Tensor]) -> None: ...


def steepest(gradient: Tensor, norm: str = "linf") -> Tensor:
    """The unit step along which a linear function grows fastest: the sign in L-inf, the direction in L2."""
    return gradient.sign() if norm == "linf" else gradient / gradient.flatten().norm().clamp_min(1e-30)


class SteepestStep:
    """delta - lr * steepest(gradient): sign descent in L-inf, as in SGD-UAP, SPGD and SGA. `lr` in pixel units."""

    def __init__(self, lr: float, norm: str = "linf") -> None:
        self.lr, self.norm = lr, norm

    def __call__(self, delta: Tensor, gradient: Tensor) -> Tensor:
        return delta - self.lr * steepest(gradient, self.norm)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        return None


class AdamStep:
    """Adam (Kingma and Ba, 2015) on delta itself; `lr` in pixel units, so lr > 2 eps is bang-bang .

    In L2 the second moment is one number for all pixels: a scale per pixel would turn the step towards a corner of a
    cube.
    """

    def __init__(self, lr: float, norm: str = "linf", betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.lr, self.norm, self.betas = lr, norm, betas
        self._mean: Tensor | None = None
        self._square: Tensor | None = None
        self._count = 0

    def __call__(self, delta: Tensor, gradient: Tensor) -> Tensor:
        if self._mean is None or self._square is None:
            self._mean, self._square = torch.zeros_like(delta), torch.zeros_like(delta)
        b1, b2 = self.betas
        self._count += 1
        self._mean = b1 * self._mean + (1 - b1) * gradient
        square = gradient.square() if self.norm == "linf" else gradient.square().mean()
        self._square = b2 * self._square + (1 - b2) * square
        mean = self._mean / (1 - b1**self._count)
        scale = (self._square / (1 - b2**self._count)).sqrt()
        # Relative epsilon: losses of different scale take the same path.
        return delta - self.lr * mean / (scale + 1e-8 * scale.max() + 1e-30)

    def tensors(self) -> dict[str, Tensor]:
        if self._mean is None or self._square is None:
            return {}
        return {"mean": self._mean, "square": self._square, "count": torch.tensor(self._count)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self._mean, self._square = tensors["mean"], tensors["square"]
            self._count = int(tensors["count"])


REST, FULL = 1e-5, 0.5  # the change of saturation that counts as none, and the saturation from which it matters


class HalvingStep:
    """Adam on delta (L-inf) that goes on from delta / 2 once more than half of the pixels sit at the bound and that
    share has not changed by 1e-5 in a step.

    The public code halves at the end of a step; here it happens at the start of the next one, so that no pattern of
    half the size is ever looked at or returned. Take the gradient at `start(delta)`. Adam's moments are kept.
    `lr` and `eps` in pixel units; `factor()` is asked at each rest for what to go on from, 1 for the whole of delta.
    """

    def __init__(self, lr: float, eps: float, factor: Callable[[], float] = lambda: 0.5) -> None:
        self.adam = AdamStep(lr, betas=(0.9, 0.999))
        self.eps, self.factor = eps, factor
        self.halvings = 0
        self._saturation, self._next = 0.0, 1.0

    @property
    def lr(self) -> float:
        return self.adam.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self.adam.lr = lr

    def start(self, delta: Tensor) -> Tensor:
        """Where the next step starts from: `delta`, or a part of it."""
        return delta * self._next

    def __call__(self, delta: Tensor, gradient: Tensor) -> Tensor:
        moved = project(self.adam(self.start(delta), gradient), self.eps)
        share = saturation(moved, self.eps)
        at_rest = share > FULL and abs(share - self._saturation) < REST
        self._saturation, self._next = share, self.factor() if at_rest else 1.0
        self.halvings += self._next < 1
        return moved

    def tensors(self) -> dict[str, Tensor]:
        own = torch.tensor([self._saturation, self._next, self.halvings], dtype=torch.float64)
        return {**self.adam.tensors(), "halving": own}

    def load(self, tensors: dict[str, Tensor]) -> None:
        tensors = dict(tensors)
        self._saturation, self._next, halvings = tensors.pop("halving").tolist()
        self.halvings = int(halvings)
        self.adam.load(tensors)
