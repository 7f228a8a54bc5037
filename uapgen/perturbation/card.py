"""The card: the JSON that travels inside a perturbation file and says what it is, and how and on what it was made."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from .. import __version__
from ..errors import UapgenError, UsageError
from ..runtime import tensor_sha256
from .ball import LINF_TOLERANCE, check_eps

SCHEMA = "uapgen.uap/1"
DATA_CLASSES = ("none", "proxy", "driven")
UNKNOWN_CLASS = "unknown"  # a perturbation that somebody else made: nothing here saw what it was crafted on

# What readers of a card rely on: the kind of each entry, and whether it must be there.
ENTRIES: dict[str, tuple[type, bool]] = {
    "delta": (dict, True),
    "delta.sha256": (str, True),
    "delta.shape": (list, True),
    "delta.layout": (str, False),
    "budget": (dict, True),
    "budget.norm": (str, True),
    "budget.eps": (float, True),
    "budget.max_abs": (float, False),
    "method": (dict, True),
    "method.name": (str, True),
    "method.params": (dict, False),
    "method.effective": (dict, False),  # what the run did, whatever `params` asked for
    "method.effective.steps": (float, False),
    "method.effective.batch": (list, False),
    "method.effective.stages": (list, False),
    "method.effective.layers": (list, False),
    "data": (dict, True),
    "data.class": (str, False),
    "victim": (dict, False),
    "victim.name": (str, False),
    "victim.members": (list, False),
    "cost": (dict, False),
    "cost.image_gradients": (float, False),
    "environment": (dict, False),
    "resized_from": (dict, False),
}
_KINDS = {dict: "an object", list: "a list", str: "text", float: "a number"}


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
    return {"sha256": tensor_sha256(delta), "shape": list(delta.shape), "scale": "0..1", "layout": "CHW RGB"}


def describe_budget(delta: Tensor, eps: float, norm: str) -> dict[str, Any]:
    """The bound and its use: `saturation` is the share of entries at +-eps (linf only), `l2` the norm of it all."""
    check_eps(eps, norm)
    exact = delta.double()
    saturation = float((exact.abs() >= eps - LINF_TOLERANCE).double().mean()) if norm == "linf" else None
    return {
        "norm": norm,
        "eps": eps,
        "eps_255": round(eps * 255, 6),
        "max_abs": float(exact.abs().max()),
        "saturation": saturation,
        "l2": round(float(exact.norm()), 6),  # the order of a sum is the machine's business
    }


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
        card = json.loads(text)
        json.dumps(card, ensure_ascii=False).encode()  # half a surrogate pair can be read, but never be shown
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeEncodeError are ValueErrors
        raise UapgenError(f"the card is not JSON ({error})") from error
    found = card.get("schema") if isinstance(card, dict) else None
    if found != SCHEMA:
        raise UapgenError(f"the card's schema is {found!r}; uapgen {__version__} reads {SCHEMA!r}")
    held = {path: _at(card, path.split(".")) for path in ENTRIES}
    missing = [path for path, (_, needed) in ENTRIES.items() if needed and held[path] is None]
    if missing:
        raise UapgenError(f"the card lacks {', '.join(missing)}; the file is not a complete {SCHEMA} file")
    odd = [path for path, (kind, _) in ENTRIES.items() if held[path] is not None and not _is(held[path], kind)]
    if odd:
        raise UapgenError(f"the card's {odd[0]} is {_short(held[odd[0]])}; expected {_KINDS[ENTRIES[odd[0]][0]]}")
    return card


def _at(card: Any, path: Sequence[str]) -> Any:
    """What stands there; None where there is nothing, or nothing that could hold it."""
    for key in path:
        card = card.get(key) if isinstance(card, dict) else None
    return card


def _is(value: Any, kind: type) -> bool:
    if kind is float:  # a number that a float can hold; true is none
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return isinstance(value, kind)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _timestamp(epoch: str) -> str:
    try:
        return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch!r} is not a number of seconds; unset it or correct it") from error
