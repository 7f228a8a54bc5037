"""The class-balancing regulariser with effective class frequencies, its exact optimum, and class coverage.

Rangwani, Mopuri, Babu, "Class balancing GAN with a classifier in the loop", 2021. A frozen classifier reads the
generator's images; sum_k p_k log(p_k) / N_k over the mean prediction p pulls the generator towards classes that it
has made rarely, N_k being how often it has made class k.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UsageError

FLOOR = 1e-8  # keeps log p and its gradient finite for a class that underflows; p log p there is below 2e-7


def mean_softmax(logits: Tensor) -> Tensor:
    """Mean class probabilities (K,) of a batch of logits (B,K), in float32 whatever the logits are."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.float().softmax(1).mean(0)


def negentropy(p: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k p_k log p_k in nats, for p, weights (K,). At uniform p it is -log K if the weights sum to K."""
    return (weights * p * p.clamp_min(FLOOR).log()).sum()


def entropy(logits: Tensor) -> Tensor:
    """Entropy (B,), in nats, of the predictions of single images, logits (B,K)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def kl_to_even(p: Tensor, even: float | None = None) -> float:
    """sum_k p_k log(p_k / u) in nats for p (K,), 0 log 0 being 0: 0 for even p, log K for one class only.

    u is `even`, by default 1/K.
    """
    return float(torch.xlogy(p, p / (1 / len(p) if even is None else even)).sum())


def balance_loss(logits: Tensor, weights: Tensor) -> Tensor:
    """The regulariser on one batch: logits (B,K) of generated images, weights (K,) from `ClassFrequency.weights`."""
    return negentropy(mean_softmax(logits), weights)


class RunningMean:
    """p for the regulariser when the batch is smaller than the number of classes; starts uniform.

    With K = 1000 classes and 16 images the batch mean is a hopeless estimate of p: at most 16 classes can be present
    with confidence, so the loss punishes confident images, and it knows nothing of what the previous batch made. Called
    with a batch mean (K,), this returns beta * past + (1 - beta) * batch mean, and remembers it, detached.

    Only the batch part carries a gradient, and carries it in full (not times 1 - beta): dL/dp is taken at the better
    estimate of p, dp/dimages on the batch. This is the stochastic compositional gradient of Wang, Fang, Liu, 2017, and
    makes the weight of the regulariser mean the same for every beta.

    beta: in [0,1); about 1/(1-beta) batches are remembered, and they should hold several images a class. 0: none.
    """

    def __init__(self, num_classes: int, beta: float, device: torch.device | str = "cpu") -> None:
        if not 0 <= beta < 1:
            raise UsageError(f"beta {beta} is outside [0, 1); 0.99 remembers 100 batches, 0 none")
        self.beta = beta
        self.mean = torch.full((num_classes,), 1 / num_classes, device=device)

    def __call__(self, batch_mean: Tensor) -> Tensor:
        self.mean = torch.lerp(batch_mean.detach(), self.mean, self.beta)
        return self.mean + (batch_mean - batch_mean.detach())

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.mean.copy_(state["mean"])


class ClassFrequency:
    """Effective class frequency N (K,): how often the generator has made each class, with exponential forgetting.

    Hard counts c of predicted labels; once `update_every` images have been counted, N <- alpha N + (1 - alpha) c (or
    alpha N + c with `convex=False`), N <- max(N, floor), c <- 0. `first_window` is what c starts with, pseudo-counts
    that damp the first update. Published: alpha 0.5 and 512,000 images (2000 steps of 256) for CIFAR and LSUN, alpha
    0.995 and every step for iNaturalist.

    Warns for two classes, where the regulariser favours the majority (see `optimum`). Raises UsageError for fewer.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float = 0.5,
        update_every: int = 512_000,
        initial: float = 50.0,
        first_window: float = 512.0,
        floor: float = 1.0,
        convex: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        if num_classes < 2:
            raise UsageError(f"class balancing needs at least 3 classes, not {num_classes}")
        if num_classes < 3:
            warnings.warn(
                "for 2 classes the class-balancing regulariser favours the majority; use 3 or more", stacklevel=2
            )
        self.alpha, self.update_every, self.floor, self.convex = alpha, update_every, floor, convex
        self.frequency = torch.full((num_classes,), initial, dtype=torch.float64, device=device)
        self.counts = torch.full_like(self.frequency, first_window)
        self.seen = 0

    def count(self, predictions: Tensor) -> None:
        """Adds predicted labels (B,) int64 of generated images to the open window."""
        self.add(torch.bincount(predictions.to(self.counts.device), minlength=len(self.counts)))

    def add(self, counts: Tensor) -> None:
        """Adds how many generated images were predicted as each class, (K,) integers, to the open window."""
        self.counts += counts
        self.seen += int(counts.sum())

    def update(self) -> bool:
        """Closes the window if it holds `update_every` images; returns whether it did. Call it after every `count`."""
        if self.seen < self.update_every:
            return False
        added = (1 - self.alpha) * self.counts if self.convex else self.counts
        self.frequency = (self.alpha * self.frequency + added).clamp_min(self.floor)
        self.counts.zero_()
        self.seen = 0
        return True

    def weights(self) -> Tensor:
        """w_k = K (1/N_k) / sum_j (1/N_j), (K,) float32: they sum to K, and are 1 until the first update."""
        inverse = 1 / self.frequency
        return (len(inverse) * inverse / inverse.sum()).float()

    def state_dict(self) -> dict[str, Tensor]:
        return {"frequency": self.frequency, "counts": self.counts, "seen": torch.tensor(self.seen)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.frequency.copy_(state["frequency"])
        self.counts.copy_(state["counts"])
        self.seen = int(state["seen"])


def optimum(frequency: Tensor) -> Tensor:
    """The p (K,) float64 that minimises sum_k p_k log(p_k) / N_k on the simplex, for N (K,) > 0 of any scale.

    Stationarity gives p_k = exp(lambda N_k - 1), with lambda the root of an increasing function, found by bisection.
    For K >= 3 lambda is negative: p falls with N and stays below 1/e. For K = 2 it is positive and p grows with N.
    """
    n = frequency.double() / frequency.double().mean()
    high = 1 - math.log(len(n))  # Jensen: lambda <= K (1 - log K) / sum N
    low = min(high / float(n.min()), 0.0)
    for _ in range(200):
        middle = (low + high) / 2
        if float((middle * n - 1).exp().sum()) > 1:
            high = middle
        else:
            low = middle
    return (low * n - 1).exp()


def bound(frequency: Tensor) -> Tensor:
    """Upper bound (K,) float64 on `optimum`: exp(-K (log K - 1) N_k / sum_j N_j - 1), tight when all N are equal."""
    share = frequency.double() / frequency.double().sum()
    return (-len(share) * (math.log(len(share)) - 1) * share - 1).exp()


def coverage(logits: Tensor) -> dict[str, float]:
    """How a classifier sees N images, from logits (N,K).

    `classes`: how many classes are some image's argmax; `kl_mean`, `kl_argmax`: KL divergence to uniform in nats of the
    mean softmax and of the argmax histogram (0 even, log K all one class); `confidence`: mean largest probability.
    """
    k = logits.shape[1]
    p = mean_softmax(logits).double()
    share = torch.bincount(logits.argmax(1), minlength=k).double() / len(logits)
    return {
        "classes": int((share > 0).sum()),
        "kl_mean": kl_to_even(p),
        "kl_argmax": kl_to_even(share),
        "confidence": float(logits.float().softmax(1).amax(1).mean()),
    }
