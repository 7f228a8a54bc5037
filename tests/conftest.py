"""Victims small enough for a test run, none of them trained, and pictures for them."""

from __future__ import annotations

import copy
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks: a second thread costs more than it gives

import pytest
import torch
from torch import Tensor, nn

from uapgen.victims import Preprocessing, Victim

if os.environ.get("ATEN_CPU_CAPABILITY") in ("default", "avx2"):
    torch.cpu._is_avx512_bf16_supported = lambda: False  # as on a processor of that kind; torch asks this one

ROOT = Path(__file__).parent.parent
# Added to the seed of every fixture whose weights are drawn or trained: what a test asserts must hold for each.
SEED = int(os.environ.get("UAPGEN_TEST_SEED", "0"))
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
    torch.manual_seed(SEED)
    net = tiny_net(width=4).train()
    with torch.no_grad():
        net(torch.rand(64, 3, 32, 32))  # batch-norm statistics of their own
    return Victim(net, name="small", preprocessing=TINY, device="cpu", precision="fp32")


ANGLE = torch.arange(10) % 5 * torch.pi / 5
FREQUENCY = torch.where(torch.arange(10) < 5, 0.5, 1.0)  # radians per pixel


def along(angle: Tensor, frequency: Tensor, x: Tensor) -> Tensor:
    """Phase (n,len(x),len(x)) of n plane waves on the grid of the coordinates `x`, in pixels."""
    across, down = (part.view(-1, 1, 1) for part in (angle.cos(), angle.sin()))
    return frequency.view(-1, 1, 1) * (across * x.view(1, 1, -1) + down * x.view(1, -1, 1))


def gratings(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n pictures (n,3,32,32) in [0,1] of 10 classes: gratings of 5 orientations and 2 frequencies, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (n,), generator=generator)
    angle = ANGLE[labels] + 0.1 * torch.randn(n, generator=generator)
    phase = 6.28 * torch.rand(n, 1, 1, generator=generator)
    wave = (along(angle, FREQUENCY[labels], torch.arange(32.0)) + phase).sin().unsqueeze(1)
    colour = torch.rand(n, 3, 1, 1, generator=generator)
    pictures = 0.5 + 0.1 * wave * (0.5 + colour) + 0.05 * torch.randn(n, 3, 32, 32, generator=generator)
    return pictures.clamp(0, 1), labels


def tune(net: nn.Sequential, generator: torch.Generator) -> None:
    """Set the convolutions of a `tiny_net()` to windowed waves, one for each class of gratings, and to brightness.

    The first layer has the slope in fourteen directions and brightness, up and down. Each further one has the wave of
    every class at three or six phases, made from the phases of the layer before: together they see 17 pixels. The
    generator draws where phases begin. Channels that are left over hand brightness on.
    """
    first, *further = (module for module in net if isinstance(module, nn.Conv2d))
    turns = torch.arange(14) * torch.pi / 7
    slope = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    across, down = (part.view(14, 1, 1, 1) for part in (turns.cos(), turns.sin()))
    first.weight[:14] = across * slope + down * slope.T
    first.weight[14], first.weight[15] = 1, -1
    first.bias.zero_()
    read, bright = None, 14  # phases (10,n) of the layer before, and the first of its channels of brightness
    for conv, spacing, count in zip(further, (1, 2, 4), (3, 6, 6), strict=True):
        phases = 2 * torch.pi * (torch.rand(10, 1, generator=generator) + torch.arange(count) / count)
        wave = along(ANGLE, FREQUENCY, torch.arange(-1.0, 2) * spacing).view(10, 1, 1, 3, 3)
        made = phases.view(10, count, 1, 1, 1) + wave
        conv.weight.zero_()
        conv.bias.zero_()
        for k in range(10):
            own = conv.weight[k * count : (k + 1) * count]
            if read is None:
                own[:, :14] = made[k].cos() * (turns - ANGLE[k]).cos().view(1, 14, 1, 1)
            else:
                n = read.shape[1]
                own[:, k * n : (k + 1) * n] = (made[k] - read[k].view(1, n, 1, 1)).cos()
        for channel in range(10 * count, len(conv.weight)):
            sign = 1 - 2 * (channel % 2)
            conv.weight[channel, bright], conv.weight[channel, bright + 1] = sign, -sign
        read, bright = phases, 10 * count


def read_out(net: nn.Sequential, generator: torch.Generator) -> None:
    """Set the last layer by least squares in double precision: one solution, on every processor."""
    pictures, labels = gratings(600, seed=1)
    signs = torch.randint(0, 2, pictures.shape, generator=generator) * 2.0 - 1
    features = net[:-1]((torch.cat([pictures, pictures + 20 / 255 * signs]) - 0.5) / 0.5).double()
    wanted = 8 * (nn.functional.one_hot(labels, 10).repeat(2, 1).double() - 0.1)  # logits of 7.2 and -0.8
    std, mean = torch.std_mean(features, 0)
    x = nn.functional.pad((features - mean) / std, (0, 1), value=1.0)
    solved = torch.linalg.solve(x.T @ x + len(x) * 1e-3 * torch.eye(x.shape[1], dtype=x.dtype), x.T @ wanted)
    weight = (solved[:-1] / std.unsqueeze(1)).T
    net[-1].bias.copy_(solved[-1] - weight @ mean)
    net[-1].weight.copy_(weight)


@pytest.fixture(scope="session")
def tiny_module() -> nn.Sequential:
    """A CNN that tells the gratings apart by construction: 99 of 100, and as many behind random signs of 10 levels."""
    generator = torch.Generator().manual_seed(SEED)
    net = tiny_net()
    with torch.no_grad():
        tune(net, generator)
        for module in net:
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of the one batch that follows
        net.train()((gratings(600, seed=1)[0] - 0.5) / 0.5)
        read_out(net.eval(), generator)
    return net


@pytest.fixture
def tiny_victim(tiny_module: nn.Module) -> Victim:
    return Victim(tiny_module, name="tiny", preprocessing=TINY, device="cpu")


@pytest.fixture
def frail_victim(tiny_module: nn.Sequential) -> Victim:
    """`tiny_victim` with a weak spot: class 8 gains by brightness, in which the pictures differ little, and 9 loses.

    Nine of ten pictures change class where all become brighter or darker by 24 levels.
    """
    net = copy.deepcopy(tiny_module)
    with torch.no_grad():
        net[-1].weight[8:, -4:] += torch.tensor([[3.0, -3, 3, -3], [-3, 3, -3, 3]])
    return Victim(net, name="frail", preprocessing=TINY, device="cpu")
