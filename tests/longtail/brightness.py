"""A victim whose classes are levels of brightness, and pictures of them; nothing is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.conftest import TINY
from uapgen.longtail import LabelledImages
from uapgen.runtime import rng
from uapgen.victims import Victim

CLASSES = 5


class Brightness(nn.Module):
    """Logits of 5 classes from the mean colour: class k where the pixels are about k / 4."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(0, 1, CLASSES))
        self.head = nn.Linear(CLASSES, CLASSES, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        mean = (x / 2 + 0.5).mean((1, 2, 3))  # undoes TINY's normalisation
        return self.head(-80 * (mean[:, None] - self.centres).square())


def brightness_victim() -> Victim:
    return Victim(Brightness(), name="brightness", preprocessing=TINY, device="cpu")


def flat(levels: Tensor) -> Tensor:
    return levels.view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


def bright(n: int, counts: list[int] | None = None, size: int = 32) -> LabelledImages:
    """Noisy flat pictures whose brightness is their class."""
    labels = torch.arange(n) % CLASSES if counts is None else torch.repeat_interleave(torch.tensor(counts))
    noise = 0.1 * torch.rand(len(labels), 3, size, size, generator=rng(0, "bright"))
    images = (255 * (flat(labels / (CLASSES - 1))[..., :size, :size] * 0.9 + noise)).byte()
    return LabelledImages(images, labels, CLASSES, "bright")
