"""Adversarial losses: pairs of pure functions on discriminator logits (B,), each a mean over the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu, softplus

from ..errors import UsageError
from ..runtime import rng
from .conditional import ConditionalBatchNorm, GeneratorNetwork

Loss = Callable[[Tensor, Tensor], Tensor]
Terms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class AdversarialLoss:
    """`d_loss(real, fake)` and `g_loss(real, fake)` -> scalar, to be minimised by their networks.

    `g_needs_real`: whether `g_loss` reads the real logits; where it does not, they may be an empty tensor.
    `d_terms(real, fake)`: `d_loss` before its means, a term (B,) of each real image and one of each fake one; None for
    the relativistic losses, whose terms are of pairs.
    `name`: what a run folder calls it.
    """

    d_loss: Loss
    g_loss: Loss
    g_needs_real: bool
    d_terms: Terms | None = None
    name: str | None = None

    def describe(self) -> str:
        """Its name. Raises UsageError without one: the functions themselves cannot be told apart in a run folder."""
        if self.name is None:
            raise UsageError("this adversarial loss has no name for the run folder; give AdversarialLoss a `name`")
        return self.name


def _relativistic(winner: Tensor, loser: Tensor) -> Tensor:
    assert winner.shape == loser.shape, "the i-th real image is paired with the i-th fake"
    return softplus(loser - winner).mean()


def _relativistic_average(winner: Tensor, loser: Tensor) -> Tensor:
    return softplus(loser.mean() - winner).mean() + softplus(loser - winner.mean()).mean()


relativistic = AdversarialLoss(_relativistic, lambda real, fake: _relativistic(fake, real), True, name="relativistic")
"""Paired relativistic standard GAN: D minimises -E log sigmoid(D(x_r) - D(x_f)), G the same with the roles exchanged.

Jolicoeur-Martineau, "The relativistic discriminator", 2019, RSGAN. Equal logits give log 2 to both.
"""

relativistic_average = AdversarialLoss(
    _relativistic_average,
    lambda real, fake: _relativistic_average(fake, real),
    True,
    name="relativistic_average",
)
"""RaSGAN of the same paper: each side against the other's mean logit. Equal logits give 2 log 2 to both."""

hinge = AdversarialLoss(
    lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
    lambda real, fake: -fake.mean(),
    False,
    lambda real, fake: (relu(1 - real), relu(1 + fake)),
    name="hinge",
)
"""Lim and Ye, "Geometric GAN", 2017. Zero for D once every real logit is above 1 and every fake one below -1."""

non_saturating = AdversarialLoss(
    lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
    lambda real, fake: softplus(-fake).mean(),
    False,
    lambda real, fake: (softplus(-real), softplus(fake)),
    name="non_saturating",
)
"""Goodfellow et al., 2014. Logits of zero give 2 log 2 to D and log 2 to G."""


def rarity(counts: Tensor, beta: float) -> Tensor:
    """K (1/E_k) / sum_j (1/E_j), (K,) float32, for class counts (K,): one on average, large for rare classes.

    E_k = (1 - beta^n_k) / (1 - beta) is the effective number of images of Cui et al., "Class-balanced loss", 2019.
    Raises UsageError for a class without an image, and for beta outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise UsageError(f"beta {beta} is outside [0, 1); 0.99 and 0.999 are the published ones")
    if bool((counts < 1).any()):
        raise UsageError(f"class {int((counts < 1).nonzero()[0])} has no image; leave it out of the training set")
    inverse = (1 - beta) / (1 - beta ** counts.double())
    return (len(counts) * inverse / inverse.sum()).float()


def noise_scale(counts: Tensor, *, strength: float = 0.75, beta: float = 0.99) -> Tensor:
    """Standard deviations (K,) of NoisyTwins' noise on the class embeddings, for class counts (K,)."""
    return strength * rarity(counts, beta)


class GroupSpectral:
    """gSR as an extra loss: `(fake, nimg)` -> (weight * loss, {"gsr": loss}); `fake` is not read.

    For each of L conditional batch norms and K classes, gains and biases over C channels become matrices as near to
    square as C allows, (K,a,b) with a b = C. The loss is the mean over layers and classes of
    lambda_k (sigma(gain)^2 + sigma(bias)^2), sigma the largest singular value and lambda_k half of `rarity(counts)`.
    Gains are what the network multiplies by, the 1 included. Published beta: 0.999 for SNGAN, 0.99 for BigGAN.

    sigma comes from `iterations` power steps on vectors that are kept from call to call, of gains and biases apart;
    put this object in `train_gan`'s `state` so that a resumed run keeps them. Gradients treat the vectors as fixed.
    Raises UsageError for a generator without conditional batch norm, and for counts of another length.
    """

    def __init__(
        self,
        generator: GeneratorNetwork,
        counts: Tensor,
        *,
        weight: float = 1.0,
        beta: float = 0.999,
        iterations: int = 4,
        seed: int = 0,
    ) -> None:
        self.norms = [m for m in generator.modules() if isinstance(m, ConditionalBatchNorm)]
        if not self.norms or generator.num_classes is None:
            raise UsageError(
                "group spectral regularisation needs a generator with conditional batch norm; give num_classes"
            )
        if counts.shape != (generator.num_classes,):
            raise UsageError(
                f"counts have shape {tuple(counts.shape)}, expected ({generator.num_classes},), one a class"
            )
        self.generator, self.weight, self.iterations = generator, weight, iterations
        self.options = {"counts": counts.tolist(), "beta": beta, "seed": seed}
        self.strength = 0.5 * rarity(counts, beta)
        draws = rng(seed, "gsr")
        self.vectors = {  # of gains (0) and of biases (1): (2,K,b)
            str(i): torch.randn(2, len(counts), norm.num_features // _rows(norm.num_features), generator=draws)
            for i, norm in enumerate(self.norms)
        }

    def __call__(self, fake: Tensor, nimg: int) -> tuple[Tensor, dict[str, Any]]:
        loss = self.loss()
        return self.weight * loss, {"gsr": loss.detach()}

    def describe(self) -> dict[str, Any]:
        return {"loss": "gsr", "weight": self.weight, "iterations": self.iterations, **self.options}

    def loss(self) -> Tensor:
        """The regulariser, a scalar; advances the power iterations."""
        conditions = self.generator.class_conditions()
        strength = self.strength.to(conditions.device)
        layers = []
        for name, norm in zip(self.vectors, self.norms, strict=True):
            parameters = torch.stack([norm.gain(conditions), norm.to_bias(conditions)])  # (2,K,C)
            matrices = parameters.float().unflatten(2, (_rows(norm.num_features), -1))
            sigma, self.vectors[name] = largest_singular(matrices, self.vectors[name], self.iterations)
            layers.append((strength * sigma.square().sum(0)).mean())
        return torch.stack(layers).mean()

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.vectors)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in self.vectors.items()}:
            raise ValueError("the vectors of group spectral regularisation are of another generator")
        self.vectors.update(state)


def largest_singular(matrices: Tensor, v: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Largest singular values (...) of matrices (...,a,b) by power iteration from v (...,b), and the new v.

    From below: never above the true ones. The derivative is u v^T, with u and v taken as constants.
    """
    v = v.to(matrices)
    with torch.no_grad():
        for _ in range(iterations):
            u = normalize(torch.einsum("...ab,...b->...a", matrices, v), dim=-1)
            v = normalize(torch.einsum("...ab,...a->...b", matrices, u), dim=-1)
        u = normalize(torch.einsum("...ab,...b->...a", matrices, v), dim=-1)
    return torch.einsum("...a,...ab,...b->...", u, matrices, v), v


def _rows(channels: int) -> int:
    """The largest divisor of `channels` not above its root."""
    return next(a for a in range(math.isqrt(channels), 0, -1) if channels % a == 0)
