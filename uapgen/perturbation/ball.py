"""The ball ||delta|| <= eps that a pattern stays in: which eps there are, the way back into it, who is outside, and how
much of it a pattern uses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import UapgenError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

NORMS = ("linf", "l2")
LINF_TOLERANCE = 1e-6  # absolute: float32 x + delta already misses eps by 6e-8
L2_TOLERANCE = 1e-5  # relative: a float32 norm over 150,000 entries


def check_eps(eps: float, norm: str = "linf") -> None:
    """Raises UsageError unless `norm` is known and `eps` is a bound in pixel units: (0,1] for linf, positive for l2."""
    if norm not in NORMS:
        raise UsageError(f"norm {norm!r} is unknown; expected linf or l2")
    if not (math.isfinite(eps) and eps > 0):
        raise UsageError(f"eps={eps} is not positive; expected [0,1] pixel units, such as 10/255")
    if norm == "linf" and eps > 1:
        raise UsageError(f"eps={eps} is above 1; Python counts in [0,1] pixel units: did you mean {eps:g}/255?")


def length(delta: Tensor, norm: str) -> float:
    """||delta|| over the whole pattern, summed in float64."""
    return float(delta.double().norm() if norm == "l2" else delta.abs().max())


def check_budget(delta: Tensor, eps: float, norm: str) -> None:
    """Raises UapgenError when a finite `delta` is outside its ball by more than float32 rounding."""
    used = length(delta, norm)
    allowed = eps * (1 + L2_TOLERANCE) if norm == "l2" else eps + LINF_TOLERANCE
    if used > allowed:
        raise UapgenError(
            f"the perturbation's {norm} norm is {used:.6f} ({used * 255:.4g}/255), above eps={eps:.6f}"
            f" ({eps * 255:.4g}/255); project it, or state the eps that it was made with"
        )


def project(delta: Tensor, eps: float, norm: str = "linf") -> Tensor:
    """The nearest point with ||delta|| <= eps; `norm` is linf (per pixel) or l2 (over the whole pattern).

    For the steps of a craft: all of it stays on the device, and a pattern inside an l2 ball may move in its last bit.
    """
    if norm == "linf":
        return delta.clamp(-eps, eps)
    inside: Tensor = delta * (eps / delta.flatten().norm().clamp_min(eps))
    return inside


def confine(delta: Tensor, eps: float, norm: str, used: float | None = None) -> Tensor:
    """`project` for a finished pattern: one inside the ball keeps every bit. `used` is its l2 norm, if it is known."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * min(1.0, eps / max(float(delta.norm()) if used is None else used, 1e-12))


def levels(norm: str, eps: float) -> str:
    """eps in [0,1] units as it is customary to write it: `linf 10/255`."""
    return f"{norm} {eps * 255:.4g}/255"


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
