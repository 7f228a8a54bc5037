"""Keeping only the samples that a classifier of real images agrees with (Pham et al., 2019; Slim, 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import UapgenError, UsageError
from ...victims import Victim

Fresh = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # uint8 images (n,3,H,W), labels (n,)


@dataclass(frozen=True)
class ClassifierFilter:
    """Keeps an image x of label y where argmax C(x) = y and C(x)_y >= `threshold`.

    tries: how many draws of a batch's length may be spent on filling one batch; then `fill` gives up.
    Raises UsageError for a threshold outside [0,1].
    """

    classifier: Victim
    threshold: float = 0.9
    tries: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or self.tries < 1:
            given = f"threshold {self.threshold}, {self.tries} tries"
            raise UsageError(f"classifier filter with {given}; expected a probability, and at least 1 try")

    @torch.no_grad()
    def accepts(self, images: Tensor, labels: Tensor) -> Tensor:
        """Which of the images (B,3,H,W) uint8 are kept: (B,) bool."""
        logits = self.classifier(images.to(self.classifier.device).float().div_(255))
        y = labels.to(logits.device).unsqueeze(1)
        sure = logits.softmax(1).gather(1, y).squeeze(1) >= self.threshold
        return (sure & (logits.argmax(1, keepdim=True) == y).squeeze(1)).to(images.device)

    def fill(self, fresh: Fresh, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """n images that are kept, topped up with draws of `fresh`.

        Easy classes pass more often, so that a batch is no longer even: as published. Raises UapgenError with each
        class's rate of acceptance when `tries` draws do not fill the batch.
        """
        images, labels, verdicts, seen = [], [], [], []
        missing = n
        for _ in range(self.tries):
            x, y = fresh(n, draws)
            kept = self.accepts(x, y)
            images.append(x[kept][:missing])
            labels.append(y[kept][:missing])
            verdicts.append(kept)
            seen.append(y)
            missing -= len(labels[-1])
            if not missing:
                return torch.cat(images), torch.cat(labels)
        rates = class_rates(torch.cat(verdicts), torch.cat(seen), self.classifier.num_classes)
        named = ", ".join(f"{k}: {100 * rate:.1f}%" for k, rate in enumerate(rates.tolist()))
        raise UapgenError(
            f"the classifier filter kept {n - missing} of {self.tries * n} samples, and a batch needs {n}; kept of "
            f"each class {named}; lower the threshold ({self.threshold}), or train the generator longer"
        )


def class_rates(kept: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Share of each class that was kept, (K,) float64; NaN for a class that was not drawn."""
    seen = torch.bincount(labels.cpu(), minlength=num_classes)
    return torch.bincount(labels[kept].cpu(), minlength=num_classes).double() / seen
