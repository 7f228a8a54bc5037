"""The victim in the loop: what its view of generated images adds to the generator's loss.

`ClassBalance` is the published regulariser, of a classifier of the GAN's own labelled data. `VictimTerms` is its
relative for victims with many classes, small batches and further terms; each has a weight, and zero switches it off:
- balance: the class-balancing regulariser over all K victim classes, so that the proxies reach many of them;
- confidence: mean entropy of single predictions, so that a proxy is informative and not a blend of all classes;
- statistics: distance of batch-norm input statistics from the victim's running ones, so that activations look like
  those that real images cause (after DeepInversion, Yin et al., CVPR 2020). Off by itself for victims without true
  statistics.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import all_sum, world
from ..distributed.rows import mean_over_processes, moments_over_processes, whole
from ..victims import Cost, Victim
from .balance import ClassFrequency, RunningMean, coverage, entropy, mean_softmax, negentropy


@dataclass(frozen=True)
class TermWeights:
    balance: float = 10.0
    confidence: float = 4.0
    statistics: float = 0.3


class VictimTerms:
    """`terms(fake, nimg)` -> (loss, figures), for `train_gan`'s `extra_loss`.

    Looks at every `every`-th generator step only, with the loss scaled up to match (lazy regularisation): the
    victim's pass costs far more than the GAN's own. `effective=False` keeps all class weights at 1, which is DeGAN's
    diversity loss. Under torchrun `fake` is this process's part of the batch; mean prediction, class frequencies and
    statistics are those of the whole.
    """

    def __init__(
        self,
        victim: Victim,
        weights: TermWeights,
        *,
        every: int = 1,
        effective: bool = True,
        alpha: float = 0.9,
        update_every: int = 256,
        beta: float = 0.9,
        norms: int = 4,
    ) -> None:
        self.cost = Cost()
        self.victim, self.weights, self.every, self.effective = victim.counted(self.cost), weights, every, effective
        self.options = {"alpha": alpha, "update_every": update_every, "beta": beta, "norms": norms}
        k = victim.num_classes
        # Published windows are 512,000 images; here a window is a few hundred, and starts without pseudo-counts.
        self.frequency = ClassFrequency(
            k, alpha=alpha, update_every=update_every, initial=1.0, first_window=1.0, device=victim.device
        )
        self.running = RunningMean(k, beta, device=victim.device)
        self.norms = _spread(victim.batch_norms(), norms) if weights.statistics else []
        self._recent: deque[Tensor] = deque(maxlen=16)

    @property
    def image_gradients(self) -> int:
        """What the terms cost, on all processes, which have equal parts of every batch."""
        return self.cost.image_gradients * world()

    @property
    def statistics_off(self) -> bool:
        """Whether statistics were asked for and the victim has none that are true."""
        return bool(self.weights.statistics) and not self.norms

    def __call__(self, fake: Tensor, nimg: int) -> tuple[Tensor, dict[str, Any]]:
        batch = len(fake) * world()
        if (nimg // batch) % self.every:
            return fake.new_zeros(()), {}
        images = resize(fake, self.victim.input_size[1:])
        probe = self.victim.probe(images, inputs_of=self.norms)
        self._recent.append(whole(probe.logits.detach(), batch))
        self.frequency.count(self._recent[-1].argmax(1))
        self.frequency.update()
        class_weights = self.frequency.weights() if self.effective else torch.ones_like(self.running.mean)
        losses = {
            "balance": negentropy(self.running(mean_over_processes(mean_softmax(probe.logits))), class_weights),
            "confidence": entropy(probe.logits.float()).mean(),
            "statistics": statistics_distance(self.victim, self.norms, probe.layers),
        }
        total = sum((getattr(self.weights, name) * loss for name, loss in losses.items()), fake.new_zeros(()))
        return self.every * total, {f"{name}_loss": loss.item() for name, loss in losses.items()}

    def describe(self) -> dict[str, Any]:
        looks = {"weights": dataclasses.asdict(self.weights), "every": self.every, "effective": self.effective}
        return {"loss": "victim terms", "victim": self.victim.weights_sha256, **looks, **self.options}

    def coverage(self) -> dict[str, float]:
        """Class coverage of the last 16 batches that the victim saw."""
        return coverage(torch.cat(list(self._recent))) if self._recent else {}

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"frequency": self.frequency.state_dict(), "running": self.running.state_dict()}
        flat = {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}
        return {**flat, "image_gradients": torch.tensor(self.image_gradients)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for part, target in (("frequency", self.frequency), ("running", self.running)):
            target.load_state_dict(
                {k.removeprefix(part + "."): v for k, v in state.items() if k.startswith(part + ".")}
            )
        self.cost.image_gradients = int(state["image_gradients"]) // world()


class ClassBalance:
    """The regulariser as published (Rangwani et al., 2021): `balance(fake, nimg)` -> (weight * loss, figures), for
    `train_gan`'s `extra_loss`; also goes into its `state`.

    classifier: frozen, with its own normalisation; images of another size are resized to its input.
    weight: lambda; published 10, 7.5 and 5 for imbalances 100, 10 and 1 on CIFAR-10.
    effective: False keeps all class weights at 1, which is the diversity loss of DeGAN (Addepalli et al., 2020).
    window: images between two updates of the class frequencies; alpha, initial, first_window: see `ClassFrequency`.

    The mean prediction is that of the whole batch, over all processes.
    """

    def __init__(
        self,
        classifier: Victim,
        weight: float,
        *,
        effective: bool = True,
        window: int = 512_000,
        alpha: float = 0.5,
        initial: float = 50.0,
        first_window: float = 512.0,
    ) -> None:
        self.classifier, self.weight, self.effective = classifier, weight, effective
        self.options = {"window": window, "alpha": alpha, "initial": initial, "first_window": first_window}
        self.frequency = ClassFrequency(
            classifier.num_classes,
            alpha=alpha,
            update_every=window,
            initial=initial,
            first_window=first_window,
            device=classifier.device,
        )

    def __call__(self, fake: Tensor, nimg: int) -> tuple[Tensor, dict[str, Any]]:
        logits = self.classifier(resize(fake, self.classifier.input_size[1:]))
        mean = mean_over_processes(mean_softmax(logits))
        weights = self.frequency.weights() if self.effective else torch.ones_like(mean)
        loss = negentropy(mean, weights)
        made = torch.bincount(logits.argmax(1), minlength=len(mean))
        self.frequency.add(all_sum(made))
        self.frequency.update()
        return self.weight * loss, {"balance_loss": loss.detach()}

    def describe(self) -> dict[str, Any]:
        loop = {"weight": self.weight, "effective": self.effective, "classifier": self.classifier.weights_sha256}
        return {"loss": "class balancing", **loop, **self.options}

    def state_dict(self) -> dict[str, Tensor]:
        return self.frequency.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.frequency.load_state_dict(state)


def resize(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, antialiased where it shrinks; (B,3,h,w) -> (B,3,*size)."""
    if images.shape[-2:] == tuple(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def statistics_distance(victim: Victim, names: list[str], inputs: list[Tensor]) -> Tensor:
    """Mean over layers and channels of (mean - running mean)^2 / running var + log(var / running var)^2.

    `inputs` are the tensors (B,C,H,W) that the batch-norm layers `names` read. Zero without layers.
    """
    distances = []
    for name, x in zip(names, inputs, strict=True):
        norm = victim.module.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        x = x.float()
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0) if world() == 1 else moments_over_processes(x)
        true_var = norm.running_var + norm.eps
        distances.append(
            ((mean - norm.running_mean).square() / true_var + ((var + norm.eps) / true_var).log().square()).mean()
        )
    return torch.stack(distances).mean() if distances else torch.zeros((), device=victim.device)


def _spread(names: list[str], n: int) -> list[str]:
    """`n` of the names, evenly spread from first to last: hooks on all layers made a step five times dearer."""
    if len(names) <= n:
        return names
    return [names[round(i * (len(names) - 1) / (n - 1))] for i in range(n)]
