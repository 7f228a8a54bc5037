"""foolbox: perturbations as attacks, victims as models, and any of its attacks on top of a perturbation.

    model = as_foolbox(victim)
    labels = model(x).argmax(-1)                       # its own predictions: success is then the fooling rate
    _, clipped, success = UniversalAttack(uap)(model, x, labels, epsilons=[4 / 255, 10 / 255])
    LinfPGD()(WithUniversal(model, uap), x, labels, epsilons=4 / 255)

Images are torch tensors (B,3,H,W) within the model's bounds, epsilons in their units. foolbox does not round to 8 bits:
its numbers are those of `evaluate(..., quantize=False)`.
"""

from __future__ import annotations

from typing import Any

import eagerpy as ep
import foolbox
import torch
from foolbox.attacks import L2ProjectedGradientDescentAttack, LinfProjectedGradientDescentAttack
from foolbox.attacks.base import FixedEpsilonAttack, get_criterion, raise_if_kwargs, verify_input_bounds
from torch import Tensor

from ..errors import UsageError
from ..perturbation import Perturbation
from ..perturbation.ball import NORMS, confine
from ..victims import Victim
from . import VictimModule


def as_foolbox(victim: Victim) -> foolbox.PyTorchModel:
    """The victim as a foolbox model: bounds (0, 1), on the victim's device; it goes on owning its normalisation."""
    return foolbox.PyTorchModel(VictimModule(victim).eval(), bounds=(0, 1), device=victim.device)


class UniversalAttack(FixedEpsilonAttack):
    """Adds one perturbation to every image, whatever the criterion.

    Below the perturbation's own eps it is projected into the ball (clipped in linf, shortened in l2). `scale` shortens
    it in linf too and also stretches it beyond its eps, which is right for patterns that are at their bound everywhere.
    """

    def __init__(self, uap: Perturbation, *, scale: bool = False) -> None:
        self.uap, self.scale = uap, scale

    @property
    def distance(self) -> Any:
        return foolbox.distances.linf if self.uap.norm == "linf" else foolbox.distances.l2

    def run(self, model: Any, inputs: Any, criterion: Any, *, epsilon: float, **kwargs: Any) -> Any:
        """Perturbed `inputs`, clipped to the model's bounds. Raises UsageError for images of another size."""
        raise_if_kwargs(kwargs)
        get_criterion(criterion)
        x, restore = ep.astensor_(inputs)
        verify_input_bounds(x, model)
        return restore(ep.clip(x + self._step(x, model, epsilon), *model.bounds))

    def _step(self, x: Any, model: Any, epsilon: float) -> Any:
        delta = _pattern(self.uap, x.raw) * (model.bounds.upper - model.bounds.lower)
        if self.scale:
            used = float(delta.abs().max() if self.uap.norm == "linf" else delta.norm())
            return ep.astensor(delta * (epsilon / max(used, 1e-12)))
        return ep.astensor(confine(delta, epsilon, self.uap.norm))

    def __repr__(self) -> str:
        return f"UniversalAttack({self.uap.method}, {self.uap.sha256[:12]}, scale={self.scale})"


class WithUniversal(foolbox.Model):
    """A foolbox model that sees every image with the perturbation on it, so that any attack runs on top of it."""

    def __init__(self, model: foolbox.Model, uap: Perturbation) -> None:
        self._model, self._uap = model, uap
        self.data_format = getattr(model, "data_format", None)

    @property
    def bounds(self) -> Any:
        return self._model.bounds

    def __call__(self, inputs: Any) -> Any:
        x, restore = ep.astensor_(inputs)
        low, high = self.bounds
        delta = ep.astensor(_pattern(self._uap, x.raw) * (high - low))
        return restore(self._model(ep.clip(x + delta, low, high)))


def descent_from(uap: Perturbation | None, norm: str, **settings: Any) -> Any:
    """foolbox's projected gradient descent in `norm`, started at the perturbation instead of at a random point.

    None starts at the image itself. `settings` are foolbox's (steps, rel_stepsize). Raises UsageError for a norm other
    than linf and l2.
    """
    if norm not in NORMS:
        raise UsageError(f"norm {norm!r} is unknown; expected linf or l2")
    kind = LinfProjectedGradientDescentAttack if norm == "linf" else L2ProjectedGradientDescentAttack
    attack: Any = kind(random_start=uap is not None, **settings)
    if uap is not None:
        attack.get_random_start = lambda x0, epsilon: attack.project(
            x0 + ep.astensor(_pattern(uap, x0.raw)), x0, epsilon
        )
    return attack


def _pattern(uap: Perturbation, images: Any) -> Tensor:
    """Delta (3,H,W) on the device of `images`, for pixels in [0,1]."""
    if not isinstance(images, torch.Tensor):
        raise UsageError(f"expected torch images, got {type(images).__name__}; uapgen bridges foolbox's PyTorch models")
    if tuple(images.shape[-2:]) != uap.size:
        (h, w), (own_h, own_w) = images.shape[-2:], uap.size
        raise UsageError(f"images are {h}x{w} but the perturbation is {own_h}x{own_w}; give uap.resized(({h}, {w}))")
    return uap.delta.to(images.device, images.dtype)
