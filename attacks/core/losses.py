"""The losses of methods, as pure functions; labels without labels, and batches that the budget can pay for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...distributed import rows as shares
from .optimise import Gradient, gradient_of
from .run import Crafting


def activation_energy(layers: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """-mean over layers of log(1/2 sum_i w_i ||a_i||^2): the data-free objective of GD-UAP and its descendants.

    `layers` are activations (B,...); `weights` (B,), detached, weigh the images as PSP-UAP does (its w_i^2 = 1/KL_i).
    Under torchrun `layers` are this process's rows; `weights` are of the whole batch, and so is the result.
    """
    if weights is None:
        weights = torch.ones(len(layers[0]), device=layers[0].device)
    else:
        weights = weights[shares.rows(len(weights))]
    energies = [(a.float().flatten(1).square().sum(1) * weights).sum() for a in layers]
    return -torch.stack([(0.5 * energy + 1e-9).log() for energy in shares.total(energies)]).mean()


def log_energy(layers: Sequence[Tensor]) -> Tensor:
    """-mean over layers and images of log(1/2 ||a||^2): every image counts alike.

    In the logarithm of a sum over the batch the images with the largest activations, which are fooled already, take the
    gradient; here each image pulls with weight 1/energy. Under torchrun `layers` are this process's rows.
    """
    energies = torch.stack([a.float().flatten(1).square().sum(1) for a in layers])
    return -shares.mean((0.5 * energies + 1e-9).log())


def stubborn_weights(clean: Tensor, perturbed: Tensor, temperature: float) -> Tensor:
    """1/KL(clean || perturbed) of the softened predictions (B,), scaled to mean 1 and detached.

    Images whose prediction moves least count most (PSP-UAP's re-weighting).
    """
    t = temperature
    with torch.no_grad():
        p = F.log_softmax(clean / t, 1)
        q = F.log_softmax(perturbed / t, 1)
        weights = 1 / (t * t * F.kl_div(q, p, log_target=True, reduction="none").sum(1) + 1e-6)
        return weights / weights.mean()


def cosine(clean: Tensor, perturbed: Tensor) -> Tensor:
    """Mean cosine between rows of (B,K) or (B,F): Cosine-UAP at the logits, FG-UAP at the penultimate features."""
    return F.cosine_similarity(perturbed, clean).mean()


def agreement(logits: Tensor) -> Tensor:
    """Mean cosine between each image's centred logits (B,K) and their mean over the batch, which is held fixed; to be
    maximised.

    At 1 the pattern alone decides what the victim says, whatever is in the image: Cosine-UAP (Zhang et al., ICCV 2021)
    finds that this grows with the fooling rate; AT-UAP (Li et al., AAAI 2022) has a term of the same aim. Unlike the
    distance from clean logits it does not ask that the images look natural to the victim.
    """
    centred = logits - logits.mean(1, keepdim=True)
    return F.cosine_similarity(centred, centred.mean(0, keepdim=True).detach()).mean()


def displacement_similarity(clean: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine between the ways in which two perturbations move the features (B,F) of the same images.

    Low is diverse. NAG keeps patterns apart by the distance of their features; the direction of the move is what
    tells small patterns apart, whose features are all near the clean ones.
    """
    return F.cosine_similarity(one - clean, other - clean).mean()


def classification(logits: Tensor, labels: Tensor, target: int | None = None, clamp: float = float("inf")) -> Tensor:
    """Away from `labels` (B,): -mean min(CE, clamp), so that images that are fooled beyond doubt stop pulling (Shafahi
    et al. 2020). With a `target`: the mean cross-entropy to that class.
    """
    if target is not None:
        return F.cross_entropy(logits, torch.full_like(labels, target))
    return -F.cross_entropy(logits, labels, reduction="none").clamp_max(clamp).mean()


def labels_of(run: Crafting, images: Tensor) -> Tensor:
    """(B,) classes: `run.target` where the run has one, else the victim's own prediction for each image (B,3,H,W).

    The papers take true labels; sources give none, and the fooling rate asks for the victim's own prediction anyway.
    """
    if run.target is not None:
        return torch.full((len(images),), run.target, device=images.device)
    return predict(run, images)


def predict(run: Crafting, images: Tensor) -> Tensor:
    """The victim's classes (B,) for images (B,3,H,W) in [0,1]; forward only."""
    return run.look(run.victim, images).argmax(1)


def affordable(batch: int, budget: int, min_steps: int) -> int:
    """`batch`, or what lets `budget` image-gradients pay for `min_steps` batches; 1 at least."""
    return max(1, min(batch, budget // min_steps))


def label_loss(name: str, target: int | None, clamp: float) -> Callable[[Tensor, Tensor], Tensor]:
    """`loss(logits (B,K), labels (B,))` to minimise: `ce`, minus the cross-entropy to the labels cut at `clamp`; or
    `logit`, the mean logit of the labels. With a target, whose labels they then are, the sign is the other one.
    """

    def value(logits: Tensor, labels: Tensor) -> Tensor:
        if name == "ce":
            return classification(logits, labels, target, clamp)
        mean = logits.gather(1, labels[:, None]).mean()
        return mean if target is None else -mean

    return value


def label_gradient(
    run: Crafting, batch: int, loss: Callable[[Tensor, Tensor], Tensor], *, clip: bool = True
) -> Gradient:
    """The gradient of `loss(logits (B,K), labels (B,))` on `batch` fresh images; `clip` cuts x + delta to [0,1]."""
    assert run.source is not None
    source = run.source

    def gradient(delta: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        images = source.batch(batch, generator)
        labels = labels_of(run, images)

        def value(d: Tensor) -> Tensor:
            x = images + d
            return loss(run.victim(x.clamp(0, 1) if clip else x), labels)

        towards, figure = gradient_of(run, value, delta)
        return towards, {"loss": figure}

    return gradient
