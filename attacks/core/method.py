"""The registry of methods, and their parameters: declared once, in the signature, with type, range and description."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from torch import Tensor

from ...errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from .plan import CraftPlan

Craft = Callable[..., Tensor]  # f(run: Crafting, *, parameters)
Value = int | float | bool | str | None
TEXTS_OF_BOOL = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
SORTS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}


@dataclass(frozen=True)
class Limits:
    """The numbers from `low` to `high`, without an end that is open; None is no end. `choices`: these texts instead."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()

    def __contains__(self, value: Value) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, bool | str) or value is None:
            return True
        below = self.low is not None and (value < self.low or (self.low_open and value == self.low))
        beyond = self.high is not None and (value > self.high or (self.high_open and value == self.high))
        return not (below or beyond)

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(filter(None, (", ".join(self.choices[:-1]), self.choices[-1])))
        if None not in (self.low, self.high) and not (self.low_open or self.high_open):
            return f"{self.low:.12g} to {self.high:.12g}"
        low = "" if self.low is None else f"{'above' if self.low_open else 'at least'} {self.low:.12g}"
        high = "" if self.high is None else f"{'below' if self.high_open else 'at most'} {self.high:.12g}"
        return " and ".join(filter(None, (low, high)))


def at_least(low: float, *, at_most: float | None = None) -> Limits:
    """low <= value, and value <= `at_most` where a larger one means nothing, never ends or fits into no memory."""
    return Limits(low, at_most)


def above(low: float, *, at_most: float | None = None) -> Limits:
    """low < value, and value <= `at_most`."""
    return Limits(low, at_most, low_open=True)


def within(low: float, high: float, *, low_open: bool = False, high_open: bool = False) -> Limits:
    """low <= value <= high; an open end is left out itself."""
    return Limits(low, high, low_open, high_open)


def one_of(*choices: str) -> Limits:
    """One of these texts."""
    return Limits(choices=choices)


@dataclass(frozen=True, kw_only=True)
class Parameter(Limits):
    """A value that a user may set for the method `owner`; `kind` is int, float, bool or str."""

    owner: str
    name: str
    kind: type
    default: Any
    optional: bool = False  # takes None, in text: none
    text: str = ""  # what it is, with its unit

    def read(self, value: Any) -> Value:
        """`value`, text or not, as the parameter's kind; raises UsageError unless it is one within the limits."""
        if self.optional and (value is None or value == "none"):
            return None
        expected = ("" if self.choices else SORTS[self.kind], str(self), "or none" if self.optional else "")
        found = _read(self.kind, value)
        if found is not None and found in self:
            return found
        shown = value if isinstance(value, str) else repr(value)
        wrong = "out of range" if found is not None else f"not {SORTS[self.kind]}"
        listed = self.choices or self.kind is bool
        wrong, near = ("unknown", did_you_mean(shown, self.choices)) if listed else (wrong, "")
        raise UsageError(
            f"{self.owner}: {self.name}={shown} is {wrong}; expected {', '.join(filter(None, expected))}{near}"
        )

    def to_json(self) -> dict[str, Any]:
        """The declaration as JSON; `low` and `high` are null where there is no end."""
        held = {**asdict(self), "type": self.kind.__name__, "choices": list(self.choices), "description": self.text}
        return {key: value for key, value in held.items() if key not in ("owner", "kind", "text")}


def _read(kind: type, value: Any) -> Value:
    """`value` as `kind`; None where it is none: 3.0 is an int, 1.5 and True are not, nan and inf are no number."""
    if kind is str or isinstance(value, bool):
        return value if kind is not int and issubclass(type(value), kind) else None
    if kind is bool:
        return TEXTS_OF_BOOL.get(value.lower()) if isinstance(value, str) else None
    text = isinstance(value, str) and value.strip().lstrip("+-").isdecimal()
    try:
        if kind is int and (text or isinstance(value, Integral)):
            return int(value)  # not by way of float, which is exact to 16 digits only
        number = float(value) if isinstance(value, str | Real) else math.nan
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        return None
    return int(number) if kind is int else number


@dataclass(frozen=True)
class Group:
    """A frozen dataclass in a method's signature, whose fields are parameters of the method."""

    kind: type
    members: Mapping[str, Parameter | Group]

    def flat(self) -> Iterator[Parameter]:
        for member in self.members.values():
            yield from member.flat() if isinstance(member, Group) else (member,)

    def build(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Keyword arguments of `kind`, from a value for every parameter by its own name."""
        return {
            name: member.kind(**member.build(values)) if isinstance(member, Group) else values[member.name]
            for name, member in self.members.items()
        }


def _declared(owner: str, name: str, hint: Any, default: Any) -> Parameter | Group:
    """What an annotation declares; raises TypeError where it declares nothing."""
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        held = {f.name: f.default if default is MISSING else getattr(default, f.name) for f in fields(kind)}
        return Group(kind, {key: _declared(owner, key, hints[key], value) for key, value in held.items()})
    kinds = [k for k in get_args(kind) or (kind,) if k is not NoneType]
    if len(kinds) != 1 or kinds[0] not in SORTS or default is MISSING:
        raise TypeError(f"{owner}: {name} needs a default and the type int, float, bool or str, not {hint}")
    limits = asdict(next((mark for mark in marks if isinstance(mark, Limits)), Limits()))
    text = next((mark for mark in marks if isinstance(mark, str)), "")
    own = {"owner": owner, "name": name, "kind": kinds[0], "default": default, "text": text}
    return Parameter(**own, **limits, optional=NoneType in get_args(kind))


@dataclass(frozen=True)
class Method:
    """A function `f(run: Crafting, **parameters) -> delta (1,C,H,W)`; its defaults are the published settings.

    Its keyword-only parameters declare themselves: `lr: Annotated[float, above(0, at_most=1), "step in pixel units"]`.
    One that is a frozen dataclass stands for its fields, which are declared alike.
    """

    name: str
    function: Craft
    paper: str
    year: int | None
    images: str  # "none": runs without any image; "driven": needs images, the paper took the victim's domain
    norms: tuple[str, ...] = ("linf",)
    targeted: bool = False  # has a form that leads every image to one class
    stops: bool = False  # its paper stops on the fooling rate of images: takes `stop_on`
    shares: bool = True  # its batches can be shared out over processes
    cross_check: Callable[[CraftPlan], None] | None = None  # raises UsageError for what is wrong only together

    def parameters(self) -> dict[str, Parameter]:
        """The method's own parameters by name, in the order of its signature."""
        found = {parameter.name: parameter for parameter in self._signature().flat()}
        if len(found) < sum(1 for _ in self._signature().flat()):
            raise TypeError(f"{self.name} declares a parameter twice")
        return found

    def check(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """A value for every parameter: that of `params`, read, or its default.

        Raises UsageError for a name that the method does not have, and for a value outside of its declaration.
        """
        known = self.parameters()
        for key in (key for key in params if key not in known):
            near = did_you_mean(key, known)
            has = f"see 'uapgen methods show {self.name}'" if near else f"it has {', '.join(known) or 'no parameters'}"
            raise UsageError(f"{self.name} has no parameter {key!r}{near} ({has})")
        return {key: p.read(params[key]) if key in params else p.default for key, p in known.items()}

    def arguments(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """Keyword arguments of `function`, from what `check` returned."""
        return self._signature().build(params)

    def _signature(self) -> Group:
        hints = get_type_hints(self.function, include_extras=True)
        own = inspect.signature(self.function).parameters.values()
        defaults = {p.name: MISSING if p.default is p.empty else p.default for p in own if p.kind is p.KEYWORD_ONLY}
        return Group(dict, {k: _declared(self.name, k, hints[k], default) for k, default in defaults.items()})


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
    check: Callable[[CraftPlan], None] | None = None,
) -> Callable[[Craft], Craft]:
    """Makes a function known as `--method NAME`.

    A method `shares` (torchrun) if its gradients come from `gradient_of`, or pass `Victim.summed`, and what it reads of
    layers from `losses`, `uapgen.distributed.rows` or `Victim.whole`. `check(plan)` is called before any work, with
    all of `plan.params` within their ranges: it raises UsageError for values, images, a budget or a victim that do not
    go together.
    """

    def keep(function: Craft) -> Craft:
        _METHODS[name] = Method(name, function, paper, year, images, norms, targeted, stops, shares, check)
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
