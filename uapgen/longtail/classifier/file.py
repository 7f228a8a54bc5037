"""What the file of a trained classifier says of it, and how well it does; `victims.trained` loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UapgenError
from ...runfolder import save_state
from ...victims import Victim
from ...victims.trained import KIND, CifarResNet, as_victim, load_classifier
from ..data import LabelledImages

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
