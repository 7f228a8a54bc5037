"""Adversarial losses: pairs of pure functions on discriminator logits (B,), each a mean over the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

from ..errors import UsageError

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
