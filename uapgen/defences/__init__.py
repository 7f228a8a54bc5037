"""Defences: transformations of the input between the perturbed image and the victim."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..errors import UapgenError, UsageError, did_you_mean
from ..runtime import import_named, rng
from . import filters
from .filters import jpeg, smooth_jpeg

__all__ = ["EXAMPLES", "NONE", "Defence", "parse_defence", "parse_defences"]

NONE = "none"
EXAMPLES = ("none", "jpeg75", "bits3", "median3", "gauss1", "bilateral", "resize-pad", "tv", "shift4")
Transform = Callable[[Tensor, Sequence[torch.Generator]], Tensor]


@dataclass(frozen=True)
class Defence:
    """A transformation of images (B,3,H,W) float in [0,1].

    `smooth` is the form to craft through, where `transform` itself has no gradient; `draws` says that it is random.
    """

    name: str
    transform: Transform
    smooth: Transform | None = None
    draws: bool = False

    def __call__(self, x: Tensor, positions: Sequence[int], seed: int) -> Tensor:
        """Defended images. What is random depends on `seed` and each image's position in its set, not on the batch;
        a clean image and its perturbed form get the same draw.
        """
        draws = [rng(seed, "defence", self.name, int(position)) for position in positions] if self.draws else []
        return self.transform(x, draws)

    def crafted_through(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Defended images with a gradient back to `x`; all of them draw from `generator`."""
        return (self.smooth or self.transform)(x.clamp(0, 1), [generator] * len(x) if self.draws else [])


def parse_defences(text: str) -> list[Defence]:
    """`none,jpeg75,bits3`: the defences between the commas, each once. Raises UsageError for what is none."""
    words = [word.strip() for word in text.split(",")]
    return [parse_defence(word) for word in dict.fromkeys(words)]


def parse_defence(word: str) -> Defence:
    """`none`, jpegQ (quality), bitsN, medianK (odd, pixels), gaussS (sigma in pixels), `bilateral`, `resize-pad`, `tv`,
    shiftN (pixels), or `module:function`. Raises UsageError, with near names, for anything else.
    """
    if ":" in word:
        function, draws = load_defence(word)
        return Defence(word, function, draws=draws)
    plain = {
        NONE: Defence(NONE, lambda x, _: x),
        "bilateral": Defence("bilateral", _still(filters.bilateral)),
        "tv": Defence("tv", _still(filters.total_variation)),
        "resize-pad": Defence("resize-pad", filters.resize_and_pad, draws=True),
    }
    if word in plain:
        return plain[word]
    found = re.fullmatch(r"(jpeg|bits|median|gauss|shift)(\d+(?:\.\d+)?)", word)
    if not found:
        hint = did_you_mean(word, EXAMPLES) or f"; expected such as {', '.join(EXAMPLES)}, or module:function"
        raise UsageError(f"no defence {word!r}{hint}")
    return _numbered(word, found[1], float(found[2]))


def _numbered(word: str, kind: str, number: float) -> Defence:
    whole = int(number)
    if kind == "gauss":
        _expect(0 < number <= 20, word, "a sigma in pixels, up to 20")
        return Defence(word, _still(partial(filters.gauss, sigma=number)))
    _expect(number == whole, word, "a whole number")
    if kind == "jpeg":
        _expect(1 <= whole <= 100, word, "a quality from 1 to 100")
        return Defence(word, _still(partial(jpeg, quality=whole)), _still(partial(smooth_jpeg, quality=whole)))
    if kind == "bits":
        _expect(1 <= whole <= 8, word, "1 to 8 bits")
        return Defence(word, _still(partial(filters.reduce_bits, depth=whole)))
    if kind == "median":
        _expect(3 <= whole <= 15 and whole % 2 == 1, word, "an odd number of pixels from 3 to 15")
        return Defence(word, _still(partial(filters.median, size=whole)))
    _expect(whole >= 1, word, "1 pixel or more")
    return Defence(word, partial(filters.shift, most=whole), draws=True)


def _still(function: Callable[[Tensor], Tensor]) -> Transform:
    return lambda x, _: function(x)


def _expect(fits: bool, word: str, expected: str) -> None:
    if not fits:
        raise UsageError(f"defence {word!r} does not exist; expected {expected}")


TOLERANCE = 1e-4  # of the range [0,1], for arithmetic that rounds


def load_defence(spec: str) -> tuple[Callable[[Tensor, Sequence[torch.Generator]], Tensor], bool]:
    """The function that `package.module:name` names, checked at every call, and whether it takes generators.

    It maps images (B,3,H,W) float in [0,1] to images of the same shape and range. One with a parameter `generators`
    gets a seeded torch.Generator for each image, to draw from. Raises UsageError for a name that is no function.
    """
    function = import_named(spec, "defence")
    if not callable(function):
        raise UsageError(f"defence {spec!r} is a {type(function).__name__}; expected a function of images (B,3,H,W)")
    try:
        draws = "generators" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # functions written in C may have no signature
        draws = False

    def checked(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        try:
            y = function(x, generators=generators) if draws else function(x)
        except UapgenError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise UapgenError(f"defence {spec!r} raised {type(error).__name__}: {error}") from error
        _check(y, x, spec)
        return y.clamp(0, 1)

    return checked, draws


def _check(y: object, x: Tensor, spec: str) -> None:
    if not isinstance(y, Tensor) or y.shape != x.shape or not y.is_floating_point():
        found = f"{tuple(y.shape)} {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise UapgenError(f"defence {spec!r} returned {found}; expected images {tuple(x.shape)} float in [0,1]")
    low, high = float(y.detach().min()), float(y.detach().max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also refuses nan
        raise UapgenError(f"defence {spec!r} returned values from {low:.4g} to {high:.4g}; expected [0,1]")
