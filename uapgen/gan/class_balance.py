"""The class-balancing regulariser as its paper uses it: a classifier in the loop of a GAN on labelled data.

Rangwani, Mopuri, Babu, "Class balancing GAN with a classifier in the loop", 2021. `terms.VictimTerms` is its relative
for victims with many classes, small batches and further terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..distributed import all_sum
from ..distributed.sums import mean_over_processes
from ..victims import Victim
from .balance import ClassFrequency, mean_softmax, negentropy
from .victim_loss import resize


class ClassBalance:
    """`balance(fake, nimg)` -> (weight * loss, figures), for `train_gan`'s `extra_loss`; also goes into its `state`.

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

    def state_dict(self) -> dict[str, Tensor]:
        return self.frequency.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.frequency.load_state_dict(state)
