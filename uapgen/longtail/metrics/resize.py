"""How images come to Inception's 299 x 299: a choice that moves FID by whole points, so every score states it.

Parmar, Zhang, Zhu, "On aliased resizing and surprising subtleties in GAN evaluation", 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
