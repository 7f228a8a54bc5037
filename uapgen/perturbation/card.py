"""The card: the JSON that travels inside a perturbation file and says what it is, and how and on what it was made."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..errors import UapgenError, UsageError
from ..schema import SOURCE, Rules, make
from .ball import describe_budget, levels

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "uapgen.uap/1"
OPEN = Rules(closed=False, error=UapgenError)  # a later version may add entries
DATA_CLASSES = ("none", "proxy", "driven")
UNKNOWN_CLASS = "unknown"  # a perturbation that somebody else made: nothing here saw what it was crafted on
# What each class of data means, what its pattern is called, what it was made from.
DATA_WORDS = {
    "none": "no image was seen",
    "proxy": "images unrelated to the victim's task",
    "driven": "images of the victim's domain",
    UNKNOWN_CLASS: "nobody here knows what it was crafted on",
}
KIND_WORDS = {"none": "data-free", "proxy": "proxy data", "driven": "data-driven", UNKNOWN_CLASS: "unknown data"}
SHORT_WORDS = {"none": "no data", "proxy": "proxy data", "driven": "victim's data", UNKNOWN_CLASS: "imported"}


@dataclass(frozen=True)
class DeltaFacts:
    """The tensor: `sha256` of its little-endian float32 bytes, its shape (3,H,W), its units and its order of axes."""

    sha256: str
    shape: tuple[int, ...]
    scale: str | None = None
    layout: str | None = None


@dataclass(frozen=True)
class BudgetFacts:
    """The bound `eps` in pixel units (`eps_255` in levels) and its use: `saturation` is the share of entries at +-eps
    (linf only), `l2` the norm of it all.
    """

    norm: str
    eps: float
    eps_255: float | None = None
    max_abs: float | None = None
    saturation: float | None = None
    l2: float | None = None

    @property
    def text(self) -> str:
        """`linf 10/255`."""
        return levels(self.norm, self.eps)


@dataclass(frozen=True)
class StageFacts:
    """What a stage of the run did; `batch` is the range of images a backward pass, `images` of images drawn a step."""

    name: str
    steps: int
    image_gradients: int
    passes: int | None = None
    batch: tuple[int, ...] | None = None
    images: tuple[int, ...] | None = None


@dataclass(frozen=True)
class EffectiveFacts:
    """What the run did, whatever the parameters asked for; `gan`: one was trained for it."""

    steps: int | None = None
    batch: tuple[int, ...] | None = None
    gan: bool | None = None
    stages: tuple[StageFacts, ...] | None = None
    layers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MethodFacts:
    """How it was made: the method, its paper, its parameters, its budget in image-gradients, and why it stopped."""

    name: str
    paper: str | None = None
    params: dict[str, Any] | None = None
    budget: int | None = None
    effective: EffectiveFacts | None = None
    stopped: str | None = None
    notes: dict[str, Any] | None = None


@dataclass(frozen=True)
class DataFacts:
    """What images a run saw: their class (none, proxy, driven; unknown of an import) and the sources."""

    kind: str | None = field(default=None, metadata={"key": "class"})
    sources: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True)
class OriginFacts:
    """The victim that it was crafted on, as `Victim.describe` gives it; `members` are those of an ensemble."""

    name: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    members: tuple[OriginFacts, ...] | None = None


@dataclass(frozen=True)
class CostFacts:
    """Images forwarded and back-propagated through the victim, and images forwarded only."""

    image_gradients: int | None = None
    image_forwards: int | None = None


@dataclass(frozen=True)
class ResizedFacts:
    """What a resized perturbation was made from: its size (H,W) and its hash."""

    size: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Card:
    """What a perturbation file says of itself: what it is, how it was made, on what, at what cost."""

    schema: Literal["uapgen.uap/1"]
    delta: DeltaFacts
    budget: BudgetFacts
    method: MethodFacts
    data: DataFacts
    uapgen: str | None = None
    victim: OriginFacts | None = None
    seed: int | None = None
    cost: CostFacts | None = None
    environment: dict[str, Any] | None = None
    resized_from: ResizedFacts | None = None
    created: str | None = None
    table: dict[str, Any] = field(default_factory=dict, metadata=SOURCE, repr=False, compare=False)

    def crafted_on(self, weights_sha256: str) -> bool:
        """Whether a victim of these weights was crafted on, alone or in an ensemble."""
        origins = [self.victim, *(self.victim.members or ())] if self.victim else []
        return any(origin is not None and origin.weights_sha256 == weights_sha256 for origin in origins)

    @property
    def target(self) -> int | None:
        """The class that every image was to go to."""
        target = (self.method.params or {}).get("target")
        return target if type(target) is int else None


def build_card(
    delta: Tensor,
    *,
    eps: float,
    norm: str,
    method: dict[str, Any],
    data: dict[str, Any],
    victim: dict[str, Any] | None,
    seed: int | None,
    cost: dict[str, int] | None,
    environment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The card of `delta` (3,H,W) float32 in pixel units. Two equal runs get equal cards: no clock and no host name.

    `created` appears only when SOURCE_DATE_EPOCH is set. Raises UsageError for values that JSON cannot hold.
    """
    if data.get("class") not in (*DATA_CLASSES, UNKNOWN_CLASS):
        raise UsageError(f"data class {data.get('class')!r} is unknown; expected one of {', '.join(DATA_CLASSES)}")
    if not method.get("name"):
        raise UsageError("the card needs the name of the method: method={'name': ...}")
    card = {
        "schema": SCHEMA,
        "uapgen": __version__,
        "delta": describe_delta(delta),
        "budget": describe_budget(delta, eps, norm),
        "method": method,
        "data": data,
        "victim": victim,
        "seed": seed,
        "cost": cost,
        "environment": describe_environment() | (environment or {}),
    }
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        card["created"] = _timestamp(epoch)
    return parse_card(canonical_json(card))


def describe_delta(delta: Tensor) -> dict[str, Any]:
    from ..runtime import tensor_sha256

    return {"sha256": tensor_sha256(delta), "shape": list(delta.shape), "scale": "0..1", "layout": "CHW RGB"}


def describe_environment() -> dict[str, Any]:
    """Versions that decide the bytes of a crafted delta."""
    packages: dict[str, str | None] = {}
    for name in ("torch", "timm"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def canonical_json(card: dict[str, Any]) -> str:
    """One text per card: sorted keys, no spaces. Raises UsageError for what JSON cannot hold."""
    try:
        return json.dumps(card, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the card cannot be written as JSON ({error}); give finite numbers and strings") from error


def parse_card(text: str) -> dict[str, Any]:
    """Raises UapgenError when `text` is not a card of a schema that this version reads."""
    try:
        card: dict[str, Any] = json.loads(text)
        json.dumps(card, ensure_ascii=False).encode()  # half a surrogate pair can be read, but never be shown
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeEncodeError are ValueErrors
        raise UapgenError(f"the card is not JSON ({error})") from error
    read_card(card)
    return card


def read_card(card: Any) -> Card:
    """The card, checked; raises UapgenError, naming the entry, for one that is not whole or of another schema."""
    found = card.get("schema") if isinstance(card, dict) else None
    if found != SCHEMA:
        raise UapgenError(f"the card's schema is {found!r}; uapgen {__version__} reads {SCHEMA!r}")
    return make(Card, card, "the card", rules=OPEN)


def _timestamp(epoch: str) -> str:
    try:
        return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch!r} is not a number of seconds; unset it or correct it") from error
