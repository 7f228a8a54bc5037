"""Victims that are files with their own program: ONNX, TorchScript and torch.export. Open only files that you trust."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UapgenError, UsageError
from .spec import Loaded, adjusted
from .victim import Preprocessing

SUFFIXES = (".onnx", ".pt2", ".torchscript")


class GraphModule(nn.Module):
    """Calls a loaded program. Its inside cannot be read: no layers, no features, and for ONNX no gradient.

    The file's sha256 is a buffer, so that it decides the victim's hash.
    """

    closed = True

    def __init__(self, call: Callable[[Tensor], Any], path: Path, differentiable: bool) -> None:
        super().__init__()
        self._call, self._name, self.differentiable = call, path.name, differentiable
        digest = hashlib.sha256(path.read_bytes()).digest()
        self.register_buffer("file_sha256", torch.tensor(list(digest), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Any:
        """Raises UsageError where a gradient is asked of a program that has none."""
        if not self.differentiable and x.requires_grad and torch.is_grad_enabled():
            raise UsageError(
                f"victim file:{self._name} has no gradient, so it can be evaluated but not attacked; craft on another "
                "victim and evaluate the pattern on this one"
            )
        return self._call(x)


def load_graph(path: Path, changes: dict[str, Any], device: torch.device) -> Loaded:
    """The program in `path` (.onnx, .pt2 or .torchscript), fed with normalised images (B,3,H,W) float32.

    Files say nothing of preprocessing: `changes` to ImageNet's customary one come from the victim's options, and an
    ONNX file's fixed input size counts. Raises UapgenError for files that cannot be opened.
    """
    if not path.is_file():
        raise UapgenError(f"cannot read victim {path}: {'a folder' if path.is_dir() else 'it is not there'}")
    preprocessing = Preprocessing(origin="ImageNet's custom")
    if path.suffix == ".onnx":
        call, size = _open_onnx(path)
        preprocessing = adjusted(preprocessing, {"input_size": size} if size else {}, path.name)
    else:
        call = _open_torch(path, device)
    module = GraphModule(call, path, differentiable=path.suffix != ".onnx")
    return Loaded(module, f"file:{path.name}", "file", adjusted(preprocessing, changes, "--victim"), source=path.name)


def _open_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], tuple[int, int] | None]:
    """The call, and (H,W) of its input where they are fixed."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UapgenError(f"victim file:{path} needs onnxruntime; pip install 'uapgen[onnx]'") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise UapgenError(f"onnxruntime cannot open {path}: {_first_line(error)}") from error
    entries = session.get_inputs()
    if len(entries) != 1 or len(entries[0].shape) != 4:
        raise UapgenError(f"{path} takes {[e.shape for e in entries]}; expected one input of images (B,3,H,W)")
    batch, _, h, w = entries[0].shape

    def call(x: Tensor) -> Tensor:
        pixels = x.detach().float().contiguous().cpu()
        # A file exported for one batch size, mostly 1, is asked again and again.
        parts = pixels.split(batch) if isinstance(batch, int) else [pixels]
        try:
            logits = [session.run(None, {entries[0].name: part.numpy()})[0] for part in parts]
        except Exception as error:  # as above
            raise UapgenError(
                f"onnxruntime failed on {path} with images {tuple(x.shape)}: {_first_line(error)}"
            ) from error
        return torch.cat([torch.from_numpy(part) for part in logits]).to(x.device)

    return call, (h, w) if isinstance(h, int) and isinstance(w, int) else None


def _open_torch(path: Path, device: torch.device) -> Callable[[Tensor], Any]:
    # The method and not the module: an exported program refuses the eval() that its holder would pass on.
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module().to(device).forward
        return torch.jit.load(str(path), map_location=device).eval().forward
    except Exception as error:  # zip, pickle, schema and operator errors of many kinds
        raise UapgenError(f"torch cannot open {path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
