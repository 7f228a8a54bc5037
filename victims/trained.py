"""Classifiers that `uapgen gan classifier` trained, and plain CIFAR ResNet checkpoints, as victims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UapgenError
from ..runfolder import load_state
from .config import Preprocessing
from .resnet import CifarResNet
from .victim import Victim
from .weights import load_state as fill
from .weights import read_state_dict

KIND = "uapgen classifier 1"


def load_classifier(
    path: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Victim:
    """A classifier of `train_classifier` as a frozen victim, or a CIFAR ResNet checkpoint (.safetensors, .pt, .pth).

    A plain checkpoint says nothing of its preprocessing: give it, or ImageNet's mean and std at 32 pixels are assumed
    (those of the common CIFAR-10 ResNet-20 to 110).

    Raises UapgenError when the tensors are not those of a `CifarResNet`.
    """
    path = Path(path)
    state, header = read_state_dict(path), classifier_header(path)
    if header:
        net = CifarResNet(**header["architecture"])
        fill(net, state, path.name, f"ResNet-{header['architecture']['depth']}")
        return as_victim(net, header, device, precision)
    net = _infer(state, path)
    fill(net, state, path.name, f"ResNet-{net.configuration['depth']}")
    assumed = preprocessing or Preprocessing(input_size=(3, 32, 32), crop_pct=1.0, origin="assumed: ImageNet's")
    return Victim(
        net,
        name=f"resnet{net.configuration['depth']}/{path.stem}",
        weights="file",
        source=path.name,
        preprocessing=assumed,
        device=device,
        precision=precision,
        copy_module=False,
    )


def classifier_header(path: str | Path) -> dict[str, Any]:
    """The header of a file of `train_classifier`; empty for other weight files."""
    try:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            if "uapgen" not in (file.metadata() or {}):
                return {}
    except Exception:  # not safetensors at all: safetensors raises untyped errors, and a .pt has no header
        return {}
    header = load_state(path)[1]
    return header if header.get("kind") == KIND else {}


def as_victim(net: CifarResNet, header: dict[str, Any], device: str | torch.device, precision: str) -> Victim:
    """A frozen copy of `net` with the normalisation of its header."""
    on = header["trained_on"]
    size = header["input_size"]
    preprocessing = Preprocessing(
        input_size=(size[0], size[1], size[2]),
        mean=tuple(header["mean"]),
        std=tuple(header["std"]),
        crop_pct=1.0,
        origin="training data",
    )
    return Victim(
        net,
        name=f"resnet{header['architecture']['depth']}/{on['data']}",
        weights="trained",
        source=f"{on['data']}, {on['n']} images, imbalance {on['imbalance']:g}",
        preprocessing=preprocessing,
        device=device,
        precision=precision,
    )


def _infer(state: dict[str, Tensor], path: Path) -> CifarResNet:
    """The network that the tensors are of, from their names and shapes."""
    blocks = len({name.split(".")[1] for name in state if name.startswith("layer1.")})
    if not blocks or "linear.weight" not in state or "conv1.weight" not in state:
        raise UapgenError(f"{path} is no classifier of uapgen and no CIFAR ResNet; load other networks as a victim")
    head = "linear" if "linear.bias" in state else "cosine"
    return CifarResNet(6 * blocks + 2, len(state["linear.weight"]), len(state["conv1.weight"]), head=head)
