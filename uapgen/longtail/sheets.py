"""Sample sheets ordered by class."""

from __future__ import annotations

import torch
from torch import Tensor

from ..victims import Victim

GRID = 10  # samples of each class


@torch.no_grad()
def by_class(annotator: Victim, images: Tensor, each: int = GRID) -> Tensor:
    """The first `each` of images (N,3,H,W) uint8 that the annotator takes for each class, (K each, 3,H,W) float, class
    by class; black where there are fewer.
    """
    predicted = torch.cat([annotator(x.to(annotator.device).float() / 255).argmax(1).cpu() for x in images.split(512)])
    sheet = torch.zeros(annotator.num_classes, each, *images.shape[1:])
    for k in range(annotator.num_classes):
        found = images[predicted == k][:each].float()
        sheet[k, : len(found)] = found
    return sheet.flatten(0, 1)
