"""The registry of methods: name, function, paper, year, and what images the paper used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import UsageError, did_you_mean

Craft = Callable[..., Tensor]  # f(run: Crafting, *, parameters)


@dataclass(frozen=True)
class Method:
    """A function `f(run: Crafting, **parameters) -> delta (1,C,H,W)`; its defaults are the published settings."""

    name: str
    function: Craft
    paper: str
    year: int | None
    images: str  # "none": runs without any image; "driven": needs images, the paper took the victim's domain
    norms: tuple[str, ...] = ("linf",)
    targeted: bool = False  # has a form that leads every image to one class
    stops: bool = False  # its paper stops on the fooling rate of images: takes `stop_on`
    shares: bool = True  # its batches can be shared out over processes

    def parameters(self) -> dict[str, inspect.Parameter]:
        """The method's own keyword parameters, by name."""
        signature = inspect.signature(self.function, eval_str=True)
        return {k: p for k, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def check(self, params: dict[str, Any]) -> dict[str, Any]:
        """`params` with text values read as the parameter's type; raises UsageError for names the method does not
        have.
        """
        known = self.parameters()
        for key in params:
            if key not in known:
                has = ", ".join(known) or "no parameters"
                raise UsageError(f"{self.name} has no parameter {key!r}{did_you_mean(key, known)} (it has {has})")
        return {key: _read(known[key], value) for key, value in params.items()}


_METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    paper: str,
    year: int | None,
    images: str = "none",
    norms: tuple[str, ...] = ("linf",),
    targeted: bool = False,
    stops: bool = False,
    shares: bool = True,
) -> Callable[[Craft], Craft]:
    """Makes a function known as `--method NAME`.

    A method `shares` (torchrun) if its gradients come from `gradient_of`, or pass `Victim.summed`, and what it reads of
    layers from `losses`, `uapgen.distributed.rows` or `Victim.whole`.
    """

    def keep(function: Craft) -> Craft:
        _METHODS[name] = Method(name, function, paper, year, images, norms, targeted, stops, shares)
        return function

    return keep


def methods() -> dict[str, Method]:
    """All methods by name, sorted."""
    return dict(sorted(_METHODS.items()))


def find_method(name: str) -> Method:
    """The method of that name; raises UsageError with suggestions."""
    if name not in _METHODS:
        raise UsageError(f"no method {name!r}{did_you_mean(name, _METHODS)} (see 'uapgen methods list')")
    return _METHODS[name]


def _read(parameter: inspect.Parameter, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    kind = type(parameter.default)
    try:
        if kind is bool:
            return {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}[value.lower()]
        if kind in (int, float):
            return kind(value)
        if kind is type(None):
            return int(value) if value.lstrip("-").isdigit() else value
        return value
    except (KeyError, ValueError):
        raise UsageError(f"{parameter.name}={value!r} is not a {kind.__name__}") from None
