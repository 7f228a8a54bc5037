"""A trained classifier as one safetensors file, what its header says, and how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UapgenError
from ..runfolder import load_state, save_state
from ..victims import Preprocessing, Victim
from ..victims.weights import load_state as fill
from ..victims.weights import read_state_dict
from .data import LabelledImages
from .resnet import CifarResNet

KIND = "uapgen classifier 1"
BALANCED = 2.0  # largest class / smallest class up to which training data counts as balanced


def header_for(
    net: CifarResNet, data: LabelledImages, mean: tuple[float, ...], std: tuple[float, ...], training: dict[str, Any]
) -> dict[str, Any]:
    """What the file says of the classifier: how to build it, its preprocessing, and what it was trained on."""
    counts = data.counts().tolist()
    return {
        "kind": KIND,
        "architecture": net.configuration,
        "input_size": [3, *data.size],
        "mean": list(mean),
        "std": list(std),
        "trained_on": {
            "data": data.name,
            "sha256": data.sha256,
            "n": len(data),
            "counts": counts,
            "imbalance": round(max(counts) / max(min(counts), 1), 4),
        },
        "training": training,
    }


def finish(
    path: Path,
    net: CifarResNet,
    header: dict[str, Any],
    test: LabelledImages | None,
    *,
    device: torch.device,
    precision: str,
) -> Victim:
    """Measures the classifier on `test`, writes `path`, and returns it as it loads from there."""
    if test is not None:
        matrix = confusion(as_victim(net, header, device, precision), test)
        header = {
            **header,
            "test": {
                "data": test.name,
                "sha256": test.sha256,
                "n": len(test),
                "accuracy": accuracy(matrix),
                "class_accuracy": [round(v, 4) for v in class_accuracy(matrix).tolist()],
            },
        }
    save_state(path, net.state_dict(), header)
    return load_classifier(path, device=device, precision=precision)


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


def balanced(header: dict[str, Any]) -> bool:
    """Whether the classifier may annotate: its training classes were about equally large (see BALANCED)."""
    return bool(header) and header["trained_on"]["imbalance"] <= BALANCED


@torch.no_grad()
def confusion(classifier: Victim, data: LabelledImages, *, batch: int = 512) -> Tensor:
    """Counts (K,K) int64 on the CPU: row the label, column the predicted class. Raises UapgenError for another K."""
    k = classifier.num_classes
    if data.num_classes != k:
        raise UapgenError(f"{classifier.name} has {k} classes, {data.name} {data.num_classes}; expected equal numbers")
    device = classifier.device
    parts = zip(data.images.split(batch), data.labels.split(batch), strict=True)
    pairs = [y.to(device) * k + classifier(x.to(device).float().div_(255)).argmax(1) for x, y in parts]
    return torch.bincount(torch.cat(pairs), minlength=k * k).view(k, k).cpu()


def accuracy(matrix: Tensor) -> float:
    """Share of all images that are classified right, from `confusion`."""
    return float(matrix.diagonal().sum() / matrix.sum())


def class_accuracy(matrix: Tensor) -> Tensor:
    """Share of each class that is classified right (K,) float64; nan for a class without images."""
    return matrix.diagonal().double() / matrix.sum(1)


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
