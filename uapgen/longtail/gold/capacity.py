"""Fitting capacity: the accuracy on real data of a small classifier that saw generated data alone.

Ravuri and Vinyals, 2019, and Lesort et al., 2018, in the protocol of Mo et al., 2019: LeNet on 32 pixels, new samples
of uniform classes in each epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...errors import UsageError
from ...gan.blocks import seeded
from ...gan.conditional import GeneratorNetwork
from ...gan.sampling import Sampler, sampler
from ...runtime import rng
from ..metrics.score import Accuracy, Figure, accuracy_figure, count_correct
from .examples import Examples, as_floats


@dataclass(frozen=True)
class Fitting:
    """How the classifier is trained; the defaults are the paper's. The rate falls to a tenth after each `step` epochs.

    samples: new ones in each epoch.
    """

    epochs: int = 40
    samples: int = 10_000
    batch: int = 128
    lr: float = 1e-3
    step: int = 20

    def check(self) -> None:
        """Raises UsageError when the numbers make no training."""
        if min(self.epochs, self.samples, self.batch, self.step) < 1 or not self.lr > 0:
            raise UsageError(f"fitting capacity with {self}; expected positive numbers")


def lenet(num_classes: int) -> nn.Module:
    """LeNet-5 with ReLU for (B,3,32,32) in [0,1]: 5x5 convolutions of 6 and 16 channels, then 120, 84, K."""
    return nn.Sequential(
        *(_Centred(), nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)),
    )


def mlp(inputs: int, num_classes: int) -> nn.Module:
    """The classifier of points: two layers of 128."""
    return nn.Sequential(
        *(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, num_classes))
    )


def of_generator(generator: GeneratorNetwork) -> Sampler:
    """New samples at each call, of uniform classes. The generator is put into eval mode."""
    return sampler(generator)


def of_set(data: Examples) -> Sampler:
    """Drawn without replacement from a fixed set, as far as it goes: accepted samples, or real images."""

    def sample(n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        pick = torch.randperm(len(data), generator=draws)[:n].to(data.labels.device)
        return data.floats(pick, draws), data.labels[pick]

    return sample


def fitting_capacity(source: Sampler, test: Examples, fitting: Fitting | None = None, *, seed: int = 0) -> Accuracy:
    """Accuracy on `test` of the last epoch's classifier; the test set chooses nothing.

    source: `source(n, generator)` -> images or points as floats, and labels: `of_generator` or `of_set`. The classifier
    lives where `test` does: LeNet for images (which must be of 32 pixels, else UsageError), an MLP for points.
    """
    fitting = fitting or Fitting()
    fitting.check()
    if test.x.ndim == 4 and test.x.shape[2:] != (32, 32):
        raise UsageError(
            f"{test.name} has images of {tuple(test.x.shape[2:])}; LeNet takes 32x32, load it with size 32"
        )
    with seeded(seed, "gold-fitting"):
        net = lenet(test.num_classes) if test.x.ndim == 4 else mlp(test.x.shape[1], test.num_classes)
    net = net.to(test.x.device)
    optimizer = torch.optim.Adam(net.parameters(), fitting.lr, (0.5, 0.999))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, fitting.step, 0.1)
    counts = torch.zeros(test.num_classes, dtype=torch.long, device=test.x.device)
    for epoch in range(fitting.epochs):
        with torch.no_grad():
            x, labels = source(fitting.samples, rng(seed, "gold-fitting", epoch))
        x, labels = x.to(test.x.device), labels.to(test.x.device)
        counts += labels.bincount(minlength=test.num_classes)
        order = torch.randperm(len(x), generator=rng(seed, "gold-fitting-order", epoch)).to(x.device)
        for pick in order.split(fitting.batch):
            loss = cross_entropy(net(x[pick]), labels[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        predicted = torch.cat([net(as_floats(part)).argmax(1) for part in test.x.split(1000)])
    return count_correct(predicted, test.labels, test.num_classes, counts.tolist())


def capacity_figure(
    source: Sampler, test: Examples, fitting: Fitting | None = None, *, seed: int = 0
) -> dict[str, Figure]:
    """`fitting-capacity` as an entry of a score, with its terms."""
    fitting = fitting or Fitting()
    accuracy = fitting_capacity(source, test, fitting, seed=seed)
    name = "LeNet" if test.x.ndim == 4 else "MLP"
    trained = f"{name}, {fitting.epochs} epochs of {fitting.samples} samples, seed {seed}"
    return accuracy_figure(accuracy, test.name, trained, name="fitting-capacity")


class _Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1
