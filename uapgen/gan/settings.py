"""How a GAN is trained: all but its networks, images and length, in one object that is checked and describes itself."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ..errors import UsageError
from .augment import Augment
from .checkpoint import check_halflife
from .conditional import Judgement
from .losses import AdversarialLoss, relativistic

FakeWeight = Callable[[Judgement, Tensor | None, int], Tensor | None]


@dataclass(frozen=True)
class TrainSettings:
    """What decides a GAN's bytes, beside its networks, images and seed. The loop reads it, and so do both steps.

    batch: real images, and generated ones, of a step; over all processes.
    loss: e.g. `losses.hinge`. lr_g, lr_d, betas: Adam's; d_steps: discriminator steps for one of the generator.
    auxiliary: weight of the class cross-entropy where the discriminator has an auxiliary classifier: on real and on
        generated images in its own step, on generated ones in the generator's.
    fake_auxiliary: factor of that cross-entropy on generated images in the discriminator's step, or None for 1. With
        one, real images may be UNLABELLED: they are real, and of no class.
    fake_weight: `fake_weight(judged, labels, nimg)` -> weights (B,), of any sign, of what the generated images add to
        the discriminator's loss, or None for now. `judged` is detached. Needs a loss with `d_terms`.
    augment: `augment(images, generator)`, on whatever the discriminator sees, or None; e.g. `augment.diff_augment`.
    precision: bf16 runs both networks under autocast; losses are in float32.
    ema_halflife, ema_start: in images, see `Ema`; the defaults are the published ones, far beyond a short run.

    Raises UsageError for numbers out of range, and for a `fake_weight` whose loss has no terms of single images.
    """

    batch: int
    loss: AdversarialLoss = relativistic
    lr_g: float = 2e-4
    lr_d: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.999)
    d_steps: int = 1
    auxiliary: float = 1.0
    fake_auxiliary: float | None = None
    fake_weight: FakeWeight | None = None
    augment: Augment | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    ema_halflife: float = 1_774_000
    ema_start: int = 5_120_000

    def __post_init__(self) -> None:
        if self.batch < 1 or self.d_steps < 1:
            raise UsageError(f"batch {self.batch} and d_steps {self.d_steps} must both be at least 1")
        if not (0 < self.lr_g < math.inf and 0 < self.lr_d < math.inf):
            raise UsageError(f"learning rates {self.lr_g} and {self.lr_d}; expected positive ones, e.g. 2e-4")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas {self.betas}; expected two numbers in [0, 1), e.g. 0.0 and 0.999")
        weights = {"auxiliary": self.auxiliary, "fake_auxiliary": self.fake_auxiliary or 0.0}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise UsageError(f"{name} {weight} is no weight; expected 0 or more")
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"precision {self.precision!r} is unknown; expected fp32 or bf16")
        if self.ema_start < 0:
            raise UsageError(f"ema_start {self.ema_start} is negative; it is counted in images, and 0 is at once")
        check_halflife(self.ema_halflife)
        if self.fake_weight is not None and self.loss.d_terms is None:
            raise UsageError("weights of generated images need a loss with a term of each image: non_saturating, hinge")

    def describe(self) -> dict[str, Any]:
        """All fields as JSON: equal for equal trainings, and for no others. Raises UsageError as `described` does."""
        return {field.name: described(getattr(self, field.name), field.name) for field in dataclasses.fields(self)}


@dataclass(frozen=True)
class Every:
    """How often a run logs, saves its state, and draws a sheet of the average's images: in images, 0 is never."""

    log: int = 1024
    save: int = 10_000
    grid: int = 0


def described(value: Any, what: str) -> Any:
    """`value` as JSON that says what it does; `what` it is stands in the message.

    Numbers, texts and None say it themselves, objects by `describe()` or as dataclasses, functions by their names, and
    functools.partial by its function and arguments. Raises UsageError for all others: a lambda, a function that
    remembers variables of another one, a bound method, an object without `describe`.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "describe") and not inspect.isclass(value):
        return value.describe()
    if isinstance(value, tuple | list):
        return [described(each, what) for each in value]
    if isinstance(value, functools.partial):
        given = {str(i): each for i, each in enumerate(value.args)} | value.keywords
        arguments = {name: described(each, f"{what}'s {name}") for name, each in given.items()}
        return {"function": described(value.func, what), **arguments}
    if dataclasses.is_dataclass(value) and not inspect.isclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        fields = {name: described(each, f"{what}'s {name}") for name, each in held.items()}
        return {"kind": type(value).__qualname__, **fields}
    named = inspect.isroutine(value) and not inspect.ismethod(value) and "<lambda>" not in value.__qualname__
    if named and not getattr(value, "__closure__", None):
        return f"{value.__module__}.{value.__qualname__}"
    raise UsageError(
        f"{what} {value!r} cannot say what it does, so that no run folder can tell it from another; give a function of "
        "a module, a functools.partial of one, or an object with describe()"
    )
