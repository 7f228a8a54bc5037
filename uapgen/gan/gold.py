"""The gap of log-densities (GOLD), log p_data(x,c) - log p_g(x,c), read off an auxiliary-classifier discriminator.

Mo, Kim, Kim, Cho, Shin, "Mining GOLD samples for conditional GANs", 2019. A high gap is an under-represented example.
The marginal part log D/(1-D) is the discriminator's logit; the conditional part comes from its classifier, where the
estimator takes p_g(c|x) to be 1 for a generated x of class c, and p_data(c|x) to be 1 for a real one. What is done with
it: longtail/gold, and `GoldPool` for the flagship. Its GAN is unconditional and nobody knows a proxy's true class,
so the victim takes the auxiliary classifier's place. The target there is the samples' own density with even classes,
so that the conditional part of Eq. (2), log p_target(c) - log p_g(c), is the victim's classes' rarity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..proxies import Pool
from ..runtime import rng
from .balance import entropy
from .conditional import DiscriminatorNetwork, Judgement
from .proxy_gan import GanSource


def conditional(judged: Judgement, labels: Tensor) -> Tensor:
    """q = log D_C(c|x) of the given labels (B,), never above 0. Raises UsageError without an auxiliary classifier."""
    return _classes(judged).log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)


def generated_gap(judged: Judgement, labels: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """m + scale q (B,), Eq. (3); `scale` from `deviation_ratio` or `rejection_scale` makes it the balanced Eq. (4)."""
    return judged.logits + scale * conditional(judged, labels)


def real_gap(judged: Judgement, labels: Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """m - scale q (B,): for a real image the classifier stands for p_g(c|x), hence the sign."""
    return judged.logits - scale * conditional(judged, labels)


def unlabelled_gap(judged: Judgement, *, balanced: bool = False) -> Tensor:
    """m + H (B,), Eq. (8); balanced: m + (std m / std H) H over this set, Eq. (9).

    H[D_C(.|x)], the classifier's entropy, is the expectation of -q over its own classes, Eq. (7).
    """
    uncertainty = entropy(_classes(judged))
    scale = deviation_ratio(judged.logits, uncertainty) if balanced else 1.0
    return judged.logits + scale * uncertainty


def deviation_ratio(marginal: Tensor, conditional: Tensor) -> Tensor:
    """sigma_G / sigma_C over a set, both (N,): what Eq. (4) and (9) scale the conditional part by; 0 if that is
    constant, since it then tells no two samples apart.
    """
    return _ratio(_deviation(marginal), _deviation(conditional))


def rejection_scale(marginal: Tensor, conditional: Tensor) -> Tensor:
    """w = std(m) / rms(q): the authors' released rejection code divides by the root mean square, not by the deviation,
    so that a classifier that is constantly unsure is not blown up. 0 if q is 0 everywhere.
    """
    return _ratio(_deviation(marginal), conditional.square().mean().sqrt())


def top(scores: Tensor, k: int) -> Tensor:
    """Indices (k,) of the k highest scores, highest first; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:k]


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation; 0 where it is no more than rounding, which a ratio would blow up."""
    spread = values.std(correction=0)
    return torch.where(spread > 4 * torch.finfo(values.dtype).eps * values.abs().max(), spread, 0.0)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0.0)


def _classes(judged: Judgement) -> Tensor:
    if judged.classes is None:
        raise UsageError(
            "the gap of log-densities needs a discriminator with an auxiliary classifier: head='auxiliary'"
        )
    return judged.classes


def under_representation(marginal: Tensor, logits: Tensor) -> Tensor:
    """m + (sigma_m / sigma_r) r (N,), larger for samples that the population lacks.

    marginal: the discriminator's logits (N,); a constant added to them, as relativistic ones have, changes no order.
    logits: the victim's (N,K). r_i = -sum_c p(c|x_i) log p(c), with p(c) the mean over the N samples: high where the
    victim sees classes that it seldom sees.
    """
    shares = logits.log_softmax(1).exp()
    rarity = -(shares * shares.mean(0).clamp_min(torch.finfo(shares.dtype).tiny).log()).sum(1)
    return marginal + deviation_ratio(marginal, rarity) * rarity


@torch.no_grad()
def proxy_filter(
    images: Tensor,
    discriminator: DiscriminatorNetwork,
    victim: Callable[[Tensor], Tensor],
    *,
    keep: float = 0.5,
    resize: Callable[[Tensor], Tensor] = lambda x: x,
    chunk: int = 64,
) -> Tensor:
    """Indices of the share `keep` of images (N,3,H,W) in [0,1] that are most under-represented, those first.

    victim: pixels -> logits; a Victim is one. resize: what brings a chunk to the victim's size. The discriminator is
    put into eval mode; a class-conditional one with projection cannot judge images without labels.
    Raises UsageError for a share outside (0,1] and for no images.
    """
    check_share(keep)
    if not len(images):
        raise UsageError("no proxy samples to filter")
    discriminator.eval()
    marginal = torch.cat([discriminator.judge(part).logits.float() for part in images.split(chunk)])
    logits = torch.cat([victim(resize(part)).float() for part in images.split(chunk)])
    return top(under_representation(marginal, logits), max(1, round(keep * len(images))))


def check_share(keep: float) -> None:
    """Raises UsageError for a share outside (0,1]."""
    if not 0 < keep <= 1:
        raise UsageError(f"the share of proxies to keep is {keep}; expected above 0 and at most 1")


class GoldPool(Pool):
    """The `n` most under-represented of n / keep samples of a proxy GAN, as bytes; a ProxySource like `Pool`.

    `view` is the victim, pixels at its size -> logits; it sees every sample once, here. `kept` are the indices of those
    that stay among all, most under-represented first, `logits` (n / keep, K) what the victim said of all. The first n
    drawn are those of `Pool(source, n, seed)`.
    """

    def __init__(
        self, source: GanSource, view: Callable[[Tensor], Tensor], n: int, seed: int, *, keep: float, chunk: int = 32
    ) -> None:
        super().__init__(source, n, seed)
        check_share(keep)
        if source.discriminator is None:
            raise UsageError("the filter needs the GAN's discriminator; ask proxy_gan for it")
        self.keep, drawn = keep, max(n, round(n / keep))
        parts = [source.samples(min(chunk, drawn - i), rng(seed, "pool", i)) for i in range(0, drawn, chunk)]
        seen: list[Tensor] = []

        def look(images: Tensor) -> Tensor:
            seen.append(view(images))
            return seen[-1]

        images = torch.cat(parts)
        self.kept = proxy_filter(images, source.discriminator, look, keep=n / drawn, resize=source.resized, chunk=chunk)
        self.logits = torch.cat(seen)
        chosen = images[self.kept].split(chunk)
        self._images = torch.cat([(source.resized(part) * 255).round().to(torch.uint8) for part in chosen])

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "filter": {"name": "gold", "keep": self.keep, "drawn": len(self.logits)}}
