"""The gap of log-densities for the flagship: which proxy samples are under-represented among their like.

Its GAN is unconditional, and nobody knows the true classes of a proxy; the victim takes the auxiliary classifier's
place. The target is the samples' own density with even classes, so that the conditional part of Eq. (2), log
p_target(c) - log p_g(c), is the victim's classes' rarity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..proxies import Pool
from ..runtime import rng
from .conditional import DiscriminatorNetwork
from .gold import deviation_ratio, top
from .proxy import GanSource


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
