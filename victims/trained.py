"""Longtail's classifiers as victims, and their residual networks for small images: He, Zhang, Ren, Sun, "Deep residual
learning for image recognition", 2016, section 4.2, with parameter-free shortcuts (option A).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UapgenError, UsageError
from ..runfolder import load_state
from ..runtime import rng
from .spec import Preprocessing
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


class CifarResNet(nn.Module):
    """Normalised images (B,3,H,W) -> logits (B,K). 3 stages of (depth - 2) / 6 blocks with 1, 2 and 4 `width` channels.

    Depth 32, width 16 and 10 classes: 464,154 parameters. Tensor names are those of the common CIFAR checkpoints.
    head: "linear", or "cosine" (see `CosineLinear`) for margin losses. Initial weights depend on `seed` alone.
    Raises UsageError for a depth that is not 6n + 2, or for sizes below 1.
    """

    def __init__(
        self, depth: int = 32, num_classes: int = 10, width: int = 16, *, head: str = "linear", seed: int = 0
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise UsageError(f"ResNet depth {depth} is not 6n + 2; expected e.g. 8, 20, 32 or 56")
        if width < 1 or num_classes < 2:
            raise UsageError(f"ResNet width {width}, {num_classes} classes; expected at least 1 and 2")
        if head not in ("linear", "cosine"):
            raise UsageError(f"ResNet head {head!r} is unknown; expected linear or cosine")
        self.configuration = {"depth": depth, "num_classes": num_classes, "width": width, "head": head}
        n = (depth - 2) // 6
        self.conv1 = nn.utils.skip_init(nn.Conv2d, 3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, n, stride=1)
        self.layer2 = _stage(width, 2 * width, n, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, n, stride=2)
        kind = CosineLinear if head == "cosine" else nn.Linear
        self.linear = nn.utils.skip_init(kind, 4 * width, num_classes, bias=head == "linear")
        _initialise(self, rng(seed, "cifar-resnet"))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class CosineLinear(nn.Linear):
    """Features (B,F) -> scale * cosine between features and class weights, (B,K).

    The scale (the s of LDAM) lies here and not in the loss, so that the softmax of the logits means the same in
    training and afterwards.
    """

    scale = 30.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.utils.skip_init(nn.Conv2d, channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.utils.skip_init(nn.Conv2d, out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.added = stride, out - channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + shortcut(x, self.stride, self.added))


def shortcut(x: Tensor, stride: int, added: int) -> Tensor:
    """Option A: every `stride`-th pixel of (B,C,H,W), and `added` channels of zeros, half on either side."""
    if stride == 1 and not added:
        return x
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, added // 2, added - added // 2))


def _stage(channels: int, out: int, n: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(channels, out, stride), *(_Block(out, out, 1) for _ in range(n - 1)))


@torch.no_grad()
def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    for child in module.modules():
        if isinstance(child, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(child.weight, generator=generator)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
