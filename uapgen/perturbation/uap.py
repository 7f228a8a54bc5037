"""A universal perturbation: one float32 tensor and its card, in one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ..errors import UapgenError, UsageError, looks_like
from ..runtime import atomic_write, tensor_sha256
from .ball import check_budget, check_eps, confine, describe_budget
from .card import Card, build_card, canonical_json, describe_delta, parse_card, read_card


@dataclass(frozen=True, eq=False)
class Perturbation:
    """`delta` float32 (3,H,W) on the CPU, RGB in pixel units (10/255 is 0.0392), and the card that describes it: the
    JSON that travels in the file. `facts` is the card as a dataclass.
    """

    delta: Tensor
    card: dict[str, Any]

    @classmethod
    def create(
        cls,
        delta: Tensor,
        *,
        eps: float,
        norm: str = "linf",
        method: dict[str, Any],
        data: dict[str, Any],
        victim: dict[str, Any] | None = None,
        seed: int | None = None,
        cost: dict[str, int] | None = None,
        environment: dict[str, Any] | None = None,
    ) -> Perturbation:
        """Builds the card of `delta`, (3,H,W) or (1,3,H,W) in pixel units, inside the `norm` ball of radius `eps`.

        `method` = {"name", "paper", "params", "stopped"}; `data` = {"class", "sources"}; `victim` is what
        `Victim.describe()` gives; `cost` = {"image_gradients", "image_forwards"}; `environment` adds to the versions
        whatever else decides the bytes (device, precision).
        Raises UsageError for a bad shape or eps, UapgenError for a delta outside its ball or not finite.
        """
        delta = delta.detach().to("cpu", torch.float32)
        delta = (delta.squeeze(0) if delta.ndim == 4 else delta).clone(memory_format=torch.contiguous_format)
        _check_tensor(delta)
        check_eps(eps, norm)
        check_budget(delta, eps, norm)
        card = build_card(
            delta,
            eps=eps,
            norm=norm,
            method=method,
            data=data,
            victim=victim,
            seed=seed,
            cost=cost,
            environment=environment,
        )
        return cls(delta, card)

    @cached_property
    def facts(self) -> Card:
        """The card, read; raises UapgenError for one that is not whole."""
        return read_card(self.card)

    @property
    def eps(self) -> float:
        return self.facts.budget.eps

    @property
    def norm(self) -> str:
        return self.facts.budget.norm

    @property
    def method(self) -> str:
        return self.facts.method.name

    @property
    def data_class(self) -> str:
        return str(self.facts.data.kind)

    @property
    def sha256(self) -> str:
        return self.facts.delta.sha256

    @property
    def size(self) -> tuple[int, int]:
        """(H,W)."""
        return self.delta.shape[-2], self.delta.shape[-1]

    def apply(self, x: Tensor, *, resize: bool = False) -> Tensor:
        """clip(x + delta, 0, 1) for x (B,3,H,W) or (3,H,W), of x's dtype and on its device.

        Float images are in [0,1]; uint8 images in 0..255, and the sum is rounded, not truncated. `resize=True` fits
        delta to images of another size. Raises UsageError for a size that differs without it, and for images not RGB.
        """
        if x.ndim not in (3, 4) or x.shape[-3] != 3:
            raise UsageError(f"expected RGB images (B,3,H,W) or (3,H,W), got shape {tuple(x.shape)}")
        if not (x.is_floating_point() or x.dtype == torch.uint8):
            raise UsageError(f"expected float images in [0,1] or uint8 images, got {x.dtype}")
        size = (x.shape[-2], x.shape[-1])
        if size != self.size and not resize:
            h, w = self.size
            raise UsageError(
                f"images are {size[0]}x{size[1]} but the perturbation is {h}x{w}; give resize=True to fit it"
            )
        work = torch.float64 if x.dtype == torch.float64 else torch.float32
        delta = self.resized(size).delta.to(x.device, work)
        if x.dtype == torch.uint8:
            return (x.to(work) + 255 * delta).round().clamp(0, 255).to(torch.uint8)
        return (x.to(work) + delta).clamp(0, 1).to(x.dtype)

    def resized(self, size: int | tuple[int, int]) -> Perturbation:
        """This perturbation at `size` (H,W): antialiased bilinear, then back into the ball. The card says from what."""
        h, w = (size, size) if isinstance(size, int) else size
        if (h, w) == self.size:
            return self
        if min(h, w) < 1:
            raise UsageError(f"cannot resize a perturbation to {h}x{w}")
        delta = functional.interpolate(self.delta[None], (h, w), mode="bilinear", antialias=True)[0]
        delta = confine(delta, self.eps, self.norm)
        origin = self.card.get("resized_from") or {"size": list(self.size), "sha256": self.sha256}
        card = {
            **self.card,
            "delta": describe_delta(delta),
            "budget": describe_budget(delta, self.eps, self.norm),
            "resized_from": origin,
        }
        return Perturbation(delta, card)

    def verify(self) -> None:
        """Raises UapgenError unless the card and the tensor agree: shape, finite values, sha256, budget."""
        _check_tensor(self.delta)
        held, stated = self.facts.delta, self.facts.budget.max_abs
        if held.shape != tuple(self.delta.shape):
            raise UapgenError(f"the card says shape {list(held.shape)}, the tensor has {list(self.delta.shape)}")
        found = tensor_sha256(self.delta)
        if found != held.sha256:
            raise UapgenError(f"sha256 mismatch: card {held.sha256[:12]}, tensor {found[:12]}; the file was changed")
        check_eps(self.eps, self.norm)
        check_budget(self.delta, self.eps, self.norm)
        actual = float(self.delta.abs().max())
        if stated is not None and abs(stated - actual) > 1e-6:
            raise UapgenError(f"the card says max_abs={stated}, the tensor has {actual:.8f}; the card was changed")

    def save(self, path: str | Path) -> None:
        """Writes one file with `delta` and the card, atomically; equal perturbations give equal bytes."""
        self.verify()
        # One metadata key: safetensors writes two or more in random order.
        with atomic_write(path) as temporary:
            save_file({"delta": self.delta}, temporary, metadata={"uapgen": canonical_json(self.card)})

    @classmethod
    def load(cls, path: str | Path) -> Perturbation:
        """Reads and verifies a file that `save` wrote. Raises UapgenError, naming `path`, for anything else."""
        delta, text = _read(Path(path))
        try:
            loaded = cls(delta, parse_card(text))
            loaded.verify()
        except UapgenError as error:
            raise UapgenError(f"{path}: {error}") from error
        return loaded


def _check_tensor(delta: Tensor) -> None:
    if delta.ndim != 3 or delta.shape[0] != 3 or delta.numel() == 0 or delta.dtype != torch.float32:
        raise UsageError(f"expected a perturbation (3,H,W) float32, got shape {tuple(delta.shape)} {delta.dtype}")
    if not bool(torch.isfinite(delta).all()):
        raise UapgenError("the perturbation has values that are not finite (nan or inf)")


def _read(path: Path) -> tuple[Tensor, str]:
    if not path.is_file():
        raise UapgenError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected a perturbation file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("uapgen")
            delta = file.get_tensor("delta") if "delta" in file.keys() else None  # noqa: SIM118 (no mapping)
    except Exception as error:  # safetensors raises its own untyped errors
        raise UapgenError(f"{path} is not a perturbation file: {looks_like(path)}") from error
    if text is None or delta is None:
        raise UapgenError(f"{path} holds no uapgen card and delta; for somebody else's file use 'uapgen import'")
    return delta, text
