"""NAG: network for adversary generation (Mopuri et al., CVPR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..proxies import ProxySource
from ..victims import Victim
from .core.generators import PerturbationGenerator, Training, Without, offer, shrunk, step, strength
from .core.layerwise import layer_names, need_layers
from .core.losses import predict
from .core.method import above, at_least, register, within
from .core.optimise import repeat
from .core.run import Crafting
from .core.selection import HeldOut


@dataclass(frozen=True)
class NagSettings:
    """How `train_nag` trains a generator and chooses among its patterns."""

    batch: Annotated[int, at_least(4, at_most=10_000), "image-gradients a step; shrinks where the budget is small"] = 32
    min_steps: Annotated[int, at_least(1, at_most=1_000_000), "fewest steps; the batch shrinks for them"] = 300
    lr: Annotated[float, above(0, at_most=1), "Adam's step of the generator"] = 3e-3
    latent: Annotated[int, at_least(1, at_most=4096), "numbers behind a pattern"] = 10
    width: Annotated[int, at_least(1, at_most=256), "channels of the generator"] = 16
    diversity: Annotated[float, at_least(0, at_most=1000), "weight of patterns that do different things"] = 1.0
    layer: Annotated[float, within(0, 1), "place of the layer that tells patterns apart, as a share of depth"] = 0.75
    candidates: Annotated[int, at_least(1, at_most=1000), "patterns among which the best is returned"] = 8


@register(
    "nag",
    paper="Mopuri et al., CVPR 2018",
    year=2018,
    images="driven",
    targeted=True,
    check=need_layers,
)
def nag(
    run: Crafting,
    *,
    training: NagSettings,
    held_out: Annotated[int, at_least(1, at_most=10_000), "images set aside to choose a pattern on"] = 64,
) -> Tensor:
    """A generator z ~ U(-1,1)^`latent` -> eps tanh(...) that learns many different patterns; one of them is returned.

    Loss: `fooling` + `diversity` times minus the `distance` between what two patterns do to the same images at the
    `layer` (a share of the victim's depth; the paper takes a middle block). The paper weighs unscaled squared
    distances by 10, a number that means something for one network only; here they are relative, so the weight is
    ours. As in the paper each image meets a pattern of its own, then the permuted patterns; both passes count and
    both fool, so `batch` image-gradients are batch/2 images. The batch of 32 shrinks until the budget allows
    `min_steps` steps (the paper takes some 18,000), and `lr` is three times the paper's for the same reason. The
    network is this project's PerturbationGenerator, centred: else it learns a constant shift first and stays there.

    Of `candidates` latents the one is returned whose pattern moves `held_out` crafting images most (see HeldOut);
    those images are never trained on.
    """
    assert run.source is not None
    held = HeldOut(run, run.source, held_out, training.batch)
    drawn = run.draw_from(Without(run.source, held.images), made_of=[run.source])
    return train_nag(run, drawn, held, training, run.budget)


def train_nag(run: Crafting, source: ProxySource, held_out: HeldOut, settings: NagSettings, images: int) -> Tensor:
    """Trains a generator on `source` for `images` image-gradients; the candidate (1,3,H,W) that scores best."""
    victim, half = run.victim, shrunk(settings.batch, images, settings.min_steps) // 2
    h, w = victim.input_size[1:]
    network = PerturbationGenerator(
        (h, w), run.eps, latent_dim=settings.latent, width=settings.width, centred=True, seed=run.seed
    ).to(victim.device)
    optimizer = torch.optim.Adam(network.parameters(), settings.lr)
    choice = network.latents(settings.candidates, run.rng("latents"))
    middle = layer_at(victim, settings.layer)

    def advance(generator: torch.Generator) -> dict[str, Any]:
        x = source.batch(half, generator)
        labels = predict(run, x)
        deltas = run.tied(network(network.latents(half, generator)))
        # Turned by one: a permutation that leaves no pattern in its place.
        pairs = torch.cat([deltas, deltas.roll(1, 0)])
        probe = victim.probe((x.repeat(2, 1, 1, 1) + pairs).clamp(0, 1), layers=[middle])
        fool = fooling(probe.logits, labels.repeat(2), run.target)
        apart = distance(*victim.whole(probe.layers[0], 2 * half).chunk(2))
        step(run, optimizer, fool - settings.diversity * apart)
        offer(run, lambda: network(choice[:1]))
        figures = {"loss": round(fool.item(), 5), "distance": round(apart.item(), 4)}
        return {**figures, "strength": strength(deltas, run.eps)}

    repeat(run, "generator", Training(network, optimizer), advance, images)
    with torch.no_grad():
        patterns = run.tied(network(choice)).split(1)
    scores = [held_out.score(pattern) for pattern in patterns]
    run.notes["held_out"] = {"candidates": scores, "n": len(held_out.images)}
    return patterns[scores.index(max(scores))]


def fooling(logits: Tensor, labels: Tensor, target: int | None = None) -> Tensor:
    """-mean log(1 - p_c) of logits (B,K) and clean predictions c (B,), the paper's equation 1; to a target: -mean log
    p_t.

    The public code takes the mean inside the logarithm instead, so that images that are fooled already keep pulling.
    """
    if target is not None:
        return F.cross_entropy(logits, torch.full_like(labels, target))
    others = logits.scatter(1, labels.unsqueeze(1), float("-inf"))
    return (logits.logsumexp(1) - others.logsumexp(1)).mean()


def distance(one: Tensor, other: Tensor) -> Tensor:
    """||a - b||^2 / (||a||^2 + ||b||^2) in [0,2], the mean over a batch of activations (B,...)."""
    a, b = one.float().flatten(1), other.float().flatten(1)
    return ((a - b).square().sum(1) / (a.square().sum(1) + b.square().sum(1)).clamp_min(1e-12)).mean()


def layer_at(victim: Victim, share: float) -> str:
    """The victim's layer at `share` of its depth, 0 the first and 1 the last."""
    names = layer_names(victim)
    return names[round(min(max(share, 0.0), 1.0) * (len(names) - 1))]
