"""Victims small enough to train inside a test run, and pictures for them."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: a second thread costs more than it gives

import pytest
import torch
from torch import Tensor, nn

from uapgen.victims import Preprocessing, Victim

ROOT = Path(__file__).parent.parent
TINY = Preprocessing(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)


def tiny_net(classes: int = 10, width: int = 16) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for out in (width, 2 * width, 4 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, out, 3, 1 if channels == 3 else 2, 1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def small_victim() -> Victim:
    """A quarter as wide and not trained, the same in every process."""
    torch.manual_seed(0)
    net = tiny_net(width=4).train()
    with torch.no_grad():
        net(torch.rand(64, 3, 32, 32))  # batch-norm statistics of their own
    return Victim(net, name="small", preprocessing=TINY, device="cpu", precision="fp32")


def gratings(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n pictures (n,3,32,32) in [0,1] of 10 classes: gratings of 5 orientations and 2 frequencies, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (n,), generator=generator)
    angle = (labels % 5).float() * torch.pi / 5 + 0.1 * torch.randn(n, generator=generator)
    frequency = torch.where(labels < 5, 0.5, 1.0)
    grid = torch.arange(32.0)
    along = angle.cos().view(-1, 1, 1) * grid.view(1, 1, -1) + angle.sin().view(-1, 1, 1) * grid.view(1, -1, 1)
    phase = 6.28 * torch.rand(n, 1, 1, generator=generator)
    wave = (frequency.view(-1, 1, 1) * along + phase).sin().unsqueeze(1)
    colour = torch.rand(n, 3, 1, 1, generator=generator)
    pictures = 0.5 + 0.1 * wave * (0.5 + colour) + 0.05 * torch.randn(n, 3, 32, 32, generator=generator)
    return pictures.clamp(0, 1), labels


@pytest.fixture(scope="session")
def tiny_module() -> nn.Sequential:
    """A CNN that tells the gratings apart; a few seconds of training."""
    torch.manual_seed(0)
    net = tiny_net()
    pictures, labels = gratings(1500, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(120):
        pick = torch.randint(0, 1500, (64,), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(net((pictures[pick] - 0.5) / 0.5), labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture
def tiny_victim(tiny_module: nn.Module) -> Victim:
    return Victim(tiny_module, name="tiny", preprocessing=TINY, device="cpu")
