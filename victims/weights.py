"""Weight files: what is in them, and does every tensor have its place."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UapgenError
from .spec import FIELDS

_RESAVE = "re-save with safetensors.torch.save_file(model.state_dict(), 'FILE.safetensors')"


def load_into(module: nn.Module, path: str | Path, *, model_name: str = "", ignore: Sequence[str] = ()) -> nn.Module:
    """Loads a .safetensors, .pt or .pth file; every tensor of the file and of the module must find its partner.

    Half-precision tensors become the module's float32. `ignore` lists prefixes that the file may have in addition.
    Raises UapgenError, naming the first tensors that do not fit.
    """
    return load_state(module, read_state_dict(path), Path(path).name, model_name or type(module).__name__, ignore)


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], source: str, model_name: str, ignore: Sequence[str] = ()
) -> nn.Module:
    """As `load_into`, with the tensors in memory; `source` and `model_name` are for the message."""
    state = {key: tensor for key, tensor in state.items() if not key.startswith(tuple(ignore))}
    problems = mismatches(module, state)
    if problems:
        raise UapgenError(f"{source} does not fit {model_name}: {'; '.join(problems)}; {_remedy(module, state)}")
    module.load_state_dict(state, strict=False)  # strict above; batch norm's counters may be missing
    return module


def mismatches(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """One line for each way in which the names, shapes or kinds of the tensors differ; empty when all fit."""
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = sorted((key for key in state if key not in own), key=lambda key: key.endswith("num_batches_tracked"))
    common = [key for key in state if key in own]
    odd = [key for key in common if state[key].shape != own[key].shape]
    shapes = [f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in odd]
    kinds = [key for key in common if own[key].is_floating_point() and not state[key].is_floating_point()]
    titles = ("missing", "unexpected", "of another shape", "not floating point")
    found = zip(titles, (missing, unexpected, shapes, kinds), strict=True)
    return [f"{len(keys)} {title} ({_first(keys)})" for title, keys in found if keys]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt or .pth file, by name; checkpoints and data-parallel prefixes are unwrapped.

    Raises UapgenError for a file that is missing, cut short, not a weight file, or that holds more than tensors.
    """
    path = Path(path)
    head = _head(path)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        content = _read_torch(path, head)
    else:
        content = _read_safetensors(path, head)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise UapgenError(f"{path} holds no state dict (a mapping of names to tensors); {_RESAVE}")
    prefix = "module." if all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): tensor for key, tensor in content.items()}


def file_preprocessing(path: str | Path) -> dict[str, Any]:
    """Preprocessing that a safetensors file carries in its metadata: JSON under mean, std, input_size, ..., or all of
    it under `preprocessing` in the header of a file of uapgen's own.
    """
    from safetensors import safe_open

    if _head(Path(path))[8:9] != b"{":
        return {}
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    header = _json(metadata.get("uapgen", "{}"))
    if isinstance(header, dict) and isinstance(header.get("preprocessing"), dict):
        return {key: value for key, value in header["preprocessing"].items() if key in FIELDS}
    return {key: _json(metadata[key]) for key in FIELDS if key in metadata}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _first(keys: Sequence[str], n: int = 3) -> str:
    return ", ".join(keys[:n]) + (", ..." if len(keys) > n else "")


def _remedy(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    own = module.state_dict()
    wrong = [key for key, tensor in state.items() if key not in own or tensor.shape != own[key].shape]
    last = list(own)[-2:]
    if wrong and set(wrong) <= set(last):
        return f"for another number of classes say NAME:num_classes={state[wrong[0]].shape[0]}"
    return "give the architecture that the file was saved from (--arch or --victim)"


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UapgenError(f"cannot read weights {path}: {error.strerror}") from error
    start = head.lstrip().lower()
    kinds = {
        b"version https://git-lfs": "a git-lfs pointer and not the file itself; run 'git lfs pull'",
        b"<!doctype": "a web page; download the file itself",
        b"<html": "a web page; download the file itself",
        b"\x1f\x8b": "gzip-compressed; unpack it first",
    }
    for magic, kind in kinds.items():
        if start.startswith(magic):
            raise UapgenError(f"weights {path} is {kind}")
    if not head:
        raise UapgenError(f"weights {path} is empty; copy it again")
    return head


def _read_torch(path: Path, head: bytes) -> Any:
    if head[:2] == b"PK" and not _has_directory(path):
        raise UapgenError(f"weights {path} is cut short ({path.stat().st_size} bytes); copy it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UapgenError(f"{path} pickles more than tensors and could run code; not opened: {_RESAVE}") from error
    except Exception as error:  # on damaged bytes torch's unpickler raises whatever Python does
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UapgenError(f"torch cannot read weights {path} ({reason}); {_RESAVE}") from error


def _has_directory(path: Path) -> bool:
    """Whether the end of a zip archive is there."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # Python's own look at the directory, where that is damaged
        return False


def _read_safetensors(path: Path, head: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    length = struct.unpack("<Q", head[:8].ljust(8, b"\0"))[0]
    if head[8:9] != b"{":
        raise UapgenError(f"{path} is no weight file that uapgen knows; expected .safetensors, .pt or .pth")
    if 8 + length > path.stat().st_size:
        raise UapgenError(f"weights {path} is cut short ({path.stat().st_size} bytes); copy it again")
    try:
        return dict(load_file(path))
    except (SafetensorError, KeyError) as error:
        raise UapgenError(f"weights {path} is damaged or cut short ({error}); copy it again") from error
