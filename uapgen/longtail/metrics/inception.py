"""The FID's Inception-v3 from a weight file: 2048-d pool features (FID), or 768-d at Mixed_6e (FID-768, never FID).

It is torchvision's network with the differences of the 2015 TensorFlow graph that FID is defined by (Heusel et al.,
2017): 1008 outputs, no auxiliary head, average pools that do not count their padding, and a max pool in the last block.
The files of pytorch-fid and torch-fidelity have torchvision's tensor names. Torchvision's own ImageNet weights have the
same shapes and give other numbers; the first layer tells them apart.

How images come to its 299 x 299 moves FID by whole points, so every score states the resize: Parmar, Zhang, Zhu, "On
aliased resizing and surprising subtleties in GAN evaluation", 2022.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception as tv

from ...errors import UapgenError, UsageError
from ...runtime import module_sha256, resolve_device
from ...victims.weights import load_state, read_state_dict
from .features import Features, Images, batches

LABELS = {2048: "FID", 768: "FID-768"}
TAIL = ("Mixed_7a.", "Mixed_7b.", "Mixed_7c.")
HEADS = ("fc.", "AuxLogits.")  # features need neither
STEM_BIAS = (3.0390, 0.7495, -0.7939, 0.4121)  # Conv2d_1a_3x3's first channels, batch-norm mean absorbed


class _BlockA(tv.InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), five, double, self.branch_pool(_average(x))]


class _BlockC(tv.InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return [self.branch1x1(x), seven, double, self.branch_pool(_average(x))]


class _BlockE(tv.InceptionE):
    max_pool = False

    def _forward(self, x: Tensor) -> list[Tensor]:
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.max_pool else _average(x)
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(three), self.branch3x3_2b(three)], 1),
            torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1),
            self.branch_pool(pooled),
        ]


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def build_trunk(dims: int) -> nn.Module:
    """The convolutional part on the meta device, without values: to Mixed_7c for 2048 features, to Mixed_6e for 768."""
    blocks: list[Any] = [
        tv.BasicConv2d,
        _BlockA,
        tv.InceptionB,
        _BlockC,
        tv.InceptionD,
        _BlockE,
        tv.InceptionAux,
    ]
    with torch.device("meta"):  # draws no random numbers, which a file replaces anyway
        net = tv.Inception3(num_classes=1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
    net.Mixed_7c.max_pool = True
    drop = {"AuxLogits", "avgpool", "dropout", "fc"} | ({name[:-1] for name in TAIL} if dims == 768 else set())
    return nn.Sequential(OrderedDict((name, child) for name, child in net.named_children() if name not in drop))


class FidInception:
    """`net(x)` with x (B,3,H,W) in [0,1] of any size -> features (B,`dims`) float32. Frozen.

    `distance`: FID or FID-768. `resize`: a key of `resize.RESIZES`.
    """

    def __init__(self, trunk: nn.Module, dims: int, *, name: str, resize: str, device: torch.device) -> None:
        self.trunk = trunk.eval().requires_grad_(False).to(device)
        self.dims, self.distance, self.name, self.resize, self.device = dims, LABELS[dims], name, resize, device
        self.weights_sha256 = module_sha256(self.trunk)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.trunk(to_inception_input(x.to(self.device), self.resize)).mean((2, 3))

    def features(self, images: Images, *, batch_size: int = 64) -> Features:
        """Features of images as `features.batches` takes them."""
        values = [self(x).cpu() for x in batches(images, batch_size)]
        if not values:
            raise UsageError("no images to take features of")
        return Features(torch.cat(values), None, self.distance, self.name, self.weights_sha256, RESIZES[self.resize])


def load_inception(
    path: str | Path | None,
    *,
    dims: int | None = None,
    resize: str = "pytorch-fid",
    device: str | torch.device = "auto",
) -> FidInception:
    """Reads the FID network from a .safetensors or .pth file; each of its tensors must fit.

    dims: 2048, 768, or None for the most that the file has. Raises UsageError without a file and for unknown dims or
    resize, UapgenError for a file that is not this network or does not reach as far as asked.
    """
    if path is None:
        raise UsageError(
            "FID needs the weights of its Inception network; give --inception FILE (pytorch-fid's "
            "pt_inception-2015-12-05, as .safetensors or .pth), or use the annotator's features"
        )
    if dims not in (None, *LABELS) or resize not in RESIZES:
        raise UsageError(f"dims {dims}, resize {resize!r}; expected dims 2048 or 768, resize {' or '.join(RESIZES)}")
    state = read_state_dict(path)
    full = any(key.startswith(TAIL) for key in state)
    dims = dims or (2048 if full else 768)
    if dims == 2048 and not full:
        raise UapgenError(f"{path} ends before Mixed_7a and gives no 2048 features; use dims=768, which is FID-768")
    trunk = build_trunk(dims).to_empty(device="cpu")
    for name, buffer in trunk.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()  # files may lack these counters, and the weights' hash must not
    load_state(trunk, state, Path(path).name, "the FID Inception", HEADS + (TAIL if dims == 768 else ()))
    _check_stem(trunk, path)
    return FidInception(trunk, dims, name=f"fid-inception/{dims}", resize=resize, device=resolve_device(device))


def _check_stem(trunk: nn.Module, path: str | Path) -> None:
    norm = trunk.get_submodule("Conv2d_1a_3x3.bn").state_dict()
    bias = norm["bias"] - norm["running_mean"] * norm["weight"] / (norm["running_var"] + 1e-3).sqrt()
    if not torch.allclose(bias[: len(STEM_BIAS)], torch.tensor(STEM_BIAS), atol=5e-3):
        raise UapgenError(
            f"{path} is an Inception-v3, but not the network that FID is defined by (its first layer differs, as that "
            "of torchvision's ImageNet weights does); use pytorch-fid's pt_inception-2015-12-05"
        )


SIDE = 299
RESIZES = {
    "pytorch-fid": "bilinear to 299x299, half-pixel centres, no antialias; 2x - 1",
    "tensorflow": "bilinear to 299x299, TensorFlow 1 corners, no antialias; (255x - 128) / 128",
}


def to_inception_input(x: Tensor, rule: str) -> Tensor:
    """Images (B,3,H,W) in [0,1] -> (B,3,299,299) in about [-1,1]; `rule` is a key of RESIZES.

    `pytorch-fid` is that package's, `tensorflow` that of the original graph and of torch-fidelity and torchmetrics.
    """
    if rule == "tensorflow":
        rows, columns = (_tensorflow_weights(side, x.device, x.dtype) for side in x.shape[2:])
        return (255 * (rows @ x @ columns.T) - 128) / 128
    return 2 * F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1


def _tensorflow_weights(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(299, side): output i reads position i * side / 299, between its two neighbours; the last pixel repeats."""
    position = torch.arange(SIDE, device=device, dtype=torch.float32) * (side / SIDE)
    low = position.floor().long()
    high = (low + 1).clamp_max(side - 1)
    weights = torch.zeros(SIDE, side, device=device, dtype=dtype)
    index = torch.arange(SIDE, device=device)
    weights[index, low] += (1 - (position - low)).to(dtype)
    weights[index, high] += (position - low).to(dtype)
    return weights
