"""Perturbations in and out of other people's formats: .npy, .pt, .png, plain .safetensors; no pickled objects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UapgenError, UsageError, looks_like
from ..runtime import atomic_write
from .ball import check_eps, confine, length
from .card import UNKNOWN_CLASS
from .uap import Perturbation

UNITS = {"0..1": 1.0, "0..255": 1 / 255}
LAYOUTS = ("CHW", "HWC")
CHANNELS = ("RGB", "BGR")
PNG_OFFSET = 128


def export(perturbation: Perturbation, path: str | Path) -> None:
    """Writes delta alone, by the suffix of `path`: .npy and .pt hold float32 (3,H,W) in [0,1] units, RGB.

    .png holds round(255 * delta) + 128 as 8-bit RGB: whole levels only, for |delta| up to 127/255.
    """
    path = Path(path)
    delta = perturbation.delta
    match path.suffix.lower():
        case ".npy":
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, delta.numpy(), allow_pickle=False)
        case ".pt" | ".pth":
            with atomic_write(path) as temporary, temporary.open("wb") as stream:
                torch.save(delta.clone(), stream)
        case ".png":
            levels = (255 * delta).round()
            if float(levels.abs().max()) > 127:
                raise UsageError(f"a delta of {float(levels.abs().max()):.0f}/255 does not fit 8-bit PNG; export .npy")
            pixels = (levels + PNG_OFFSET).to(torch.uint8).movedim(0, -1).numpy()
            with atomic_write(path) as temporary:
                Image.fromarray(pixels).save(temporary, format="PNG")
        case suffix:
            raise UsageError(f"cannot export to {suffix or path}; expected .npy, .pt or .png")


def import_perturbation(
    path: str | Path,
    *,
    unit: str,
    layout: str,
    channels: str = "RGB",
    eps: float,
    norm: str = "linf",
) -> Perturbation:
    """Reads a bare perturbation of one image's shape (leading axes of length 1 are dropped) as a Perturbation.

    `unit` ("0..1" or "0..255"), `layout` ("CHW" or "HWC") and `channels` ("RGB" or "BGR") are stated, never guessed;
    for .png, which `export` writes, unit and layout follow from the format and are ignored. `eps` is in [0,1].
    Values up to 1% above eps are projected onto it. Raises UapgenError for values or shapes
    that do not fit, naming the unit or layout that would.
    """
    path = Path(path)
    if unit not in UNITS or layout not in LAYOUTS or channels not in CHANNELS:
        given = f"unit={unit!r}, layout={layout!r}, channels={channels!r}"
        raise UsageError(f"{given}: expected {' or '.join(UNITS)}, CHW or HWC, RGB or BGR")
    check_eps(eps, norm)
    raw = _read_tensor(path)
    if path.suffix.lower() == ".png":
        unit, layout = "0..255", "HWC"
    delta = _to_chw(raw, layout, path).float() * UNITS[unit]
    delta = delta.flip(0) if channels == "BGR" else delta
    if not bool(torch.isfinite(delta).all()):
        raise UapgenError(f"{path} has values that are not finite (nan or inf)")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Perturbation.create(
        _into_ball(delta, eps, norm, unit, path),
        eps=eps,
        norm=norm,
        method={"name": "imported", "paper": None, "params": {"unit": unit, "layout": layout, "channels": channels}},
        data={"class": UNKNOWN_CLASS, "sources": [{"source": "import", "file": path.name, "sha256": digest}]},
    )


def _read_tensor(path: Path) -> Tensor:
    if not path.is_file():
        raise UapgenError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected a perturbation file")
    try:
        match path.suffix.lower():
            case ".npy":
                return torch.from_numpy(np.load(path, allow_pickle=False))
            case ".pt" | ".pth":
                return _only_tensor(torch.load(path, map_location="cpu", weights_only=True), path)
            case ".safetensors":
                return _only_tensor(load_file(path), path)
            case ".png":
                with Image.open(path) as image:
                    return torch.from_numpy(np.array(image.convert("RGB"))).float() - PNG_OFFSET
    except UapgenError:
        raise
    except Exception as error:  # four libraries, each with its own errors for a damaged file
        raise UapgenError(f"{path} cannot be read as {path.suffix}: {looks_like(path)}") from error
    raise UsageError(f"cannot import {path.suffix or path}; expected .npy, .pt, .pth, .png or .safetensors")


def _only_tensor(value: object, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    tensors = {k: v for k, v in value.items() if isinstance(v, Tensor)} if isinstance(value, Mapping) else {}
    if len(tensors) != 1:
        found = f"{len(tensors)} tensors ({', '.join(map(str, tensors))})" if tensors else type(value).__name__
        raise UapgenError(f"{path} holds {found}; expected one tensor, or a dict with exactly one")
    return next(iter(tensors.values())).detach()


def _to_chw(raw: Tensor, layout: str, path: Path) -> Tensor:
    shape = tuple(raw.shape)
    while raw.ndim > 3 and raw.shape[0] == 1:
        raw = raw[0]
    axis = 0 if layout == "CHW" else -1
    if raw.ndim != 3 or raw.shape[axis] != 3 or raw.numel() == 0:
        other = "HWC" if layout == "CHW" else "CHW"
        fits = raw.ndim == 3 and raw.shape[-1 - axis] == 3
        hint = f"; its shape fits --layout {other}" if fits else "; expected one RGB perturbation"
        raise UapgenError(f"{path} has shape {shape}, which is not {layout} with 3 channels{hint}")
    return raw if layout == "CHW" else raw.movedim(-1, 0)


def _into_ball(delta: Tensor, eps: float, norm: str, unit: str, path: Path) -> Tensor:
    used = length(delta, norm)
    if used > eps * 1.01:
        other, factor = ("0..255", 1 / 255) if unit == "0..1" else ("0..1", 255.0)
        fits = 0.05 * eps < used * factor <= eps * 1.01
        hint = f"with --unit {other} it would fit" if fits else f"it needs --eps {used * 255:.4g}"
        raise UapgenError(f"{path} reaches {used * 255:.4g}/255 in {norm}, above eps {eps * 255:.4g}/255; {hint}")
    if unit == "0..255" and norm == "linf" and 0 < used * 255 <= eps * 1.01:
        raise UapgenError(
            f"{path} reaches only {used * 255:.4g} in units of 0..255; with --unit 0..1 it would fill eps"
        )
    return confine(delta, eps, norm, used)
