"""PSP-UAP: pseudo-semantic prior (CVPR 2025)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from ..images.warp import random_resized_crops, random_transform, unchanged
from ..proxies import DeltaCrops
from .core.curricula import shown
from .core.layerwise import first, follow_curriculum, layer_names, need_layers
from .core.losses import activation_energy, stubborn_weights
from .core.method import above, at_least, one_of, register, within
from .core.run import Crafting


@register("psp-uap", paper="Lee et al., CVPR 2025", year=2025, stops=True, check=need_layers)
def psp_uap(
    run: Crafting,
    *,
    prior: Annotated[str, one_of("jigsaw", "gaussian"), "artificial images to craft on, without --proxy"] = "jigsaw",
    share: Annotated[float, within(0, 1, low_open=True), "share of the layers that is read, from the first on"] = 0.7,
    temperature: Annotated[float, within(0.01, 1000), "softens the predictions behind the weights"] = 3.0,
    crops: Annotated[int, at_least(1, at_most=1000), "crops of each prior image + delta"] = 10,
    transforms: Annotated[bool, "rotate, brighten or shuffle the samples"] = True,
    intensity: Annotated[float, within(0.8, 100), "largest factor of intensities"] = 4.0,
    reweight: Annotated[bool, "weigh samples by how little their prediction moves"] = True,
    lr: Annotated[float, above(0, at_most=1), "Adam's step in [0,1] pixel units"] = 0.1,
    normalise: Annotated[bool, "feed what is evaluated, not the raw input of the public code"] = False,
) -> Tensor:
    """Raises the activations of the first `share` of the layers on images made of zoomed pieces of the pattern itself.

    (a) Each prior image + delta is cut into `crops` random crops of 8 to 100 % of its area, detached: the
    pseudo-semantic samples. (b) Sample + delta and the clean sample go through one of three transforms, drawn for each
    step: a rotation by up to 6 degrees, intensities times 0.8 to `intensity`, a shuffle of 2 x 2 blocks.
    (c) `reweight`: a sample counts by 1/KL between the victim's predictions with and without delta, softened by
    `temperature`; this costs a forward pass of the clean sample. The loss is -log of the energy of the batch, signed
    activations, averaged over layers.

    Published settings (share, prior, temperature): ResNet50 .7 jigsaw 3 (the default here); ResNet152 .65 jigsaw 3;
    DenseNet121 .9 jigsaw 10; Inception-v3 .2 jigsaw 3; GoogLeNet .55 jigsaw 5; VGG16 and VGG19 1 gaussian 5; AlexNet 1
    gaussian 1; MobileNet-v3 .9 gaussian 2.

    `lr`, `normalise`, the curricula (10 image-gradients a step, doubled as trm-uap's batch), --proxy and --stop-on are
    those of trm-uap. Budgets too small for 100 steps of the growing batch keep it smaller.
    """
    victim = run.victim
    read = first(layer_names(victim), share)

    def loss_of(
        delta: Tensor, priors: Tensor, n: int, iteration: float, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        samples = random_resized_crops(priors + delta, n, generator)
        samples = samples.clamp_(0, 1) if normalise else samples
        change = random_transform(victim, n, intensity, generator) if transforms else unchanged
        clean = run.look(victim, change(shown(victim, samples, normalise))) if reweight else None

        def loss(d: Tensor) -> Tensor:
            seen = victim.probe(change(shown(victim, samples + d, normalise)), layers=read)
            weights = None if clean is None else stubborn_weights(clean, seen.logits.detach(), temperature)
            return activation_energy(seen.layers, weights)

        return loss

    delta = follow_curriculum(run, "psp", loss_of, prior=prior, normalise=normalise, lr=lr, crops=crops)
    priors = run.record.sources
    run.draw_from(DeltaCrops(priors[0], lambda: delta, crops=crops, clip=normalise), made_of=priors)
    return delta
