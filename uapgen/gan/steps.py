"""One step of each player: what is drawn, the losses, the gradients over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from ..distributed import rank, world
from ..distributed.rows import average_gradients
from ..errors import UapgenError, UsageError
from .conditional import DiscriminatorNetwork, GeneratorNetwork, Judgement
from .sampling import latents_and_labels
from .settings import TrainSettings

Real = Callable[[int, torch.Generator], Tensor | tuple[Tensor, Tensor]]
ExtraLoss = Callable[[Tensor, int], tuple[Tensor, dict[str, Any]]]
Batch = tuple[Tensor, Tensor | None]  # images or latents, and labels where the networks want them
Stats = dict[str, Any]
NAMES = {
    "d_loss": "the discriminator's loss",
    "g_loss": "the generator's loss",
    "extra_loss": "the generator's extra loss",
}
UNLABELLED = -1  # the label of a real image whose class is not known


@dataclass(frozen=True)
class Game:
    """Two networks, and how they are trained against each other."""

    g: GeneratorNetwork
    d: DiscriminatorNetwork
    settings: TrainSettings

    def real(self, real: Real, draws: torch.Generator, device: torch.device) -> Batch:
        """This process's share of a batch of real images, with their labels in a conditional game."""
        given = real(self.settings.batch, draws)
        x, labels = given if isinstance(given, tuple) else (given, None)
        if self.g.num_classes is None:
            return _share(x).to(device), None
        if labels is None:
            raise UsageError(
                f"networks of {self.g.num_classes} classes need labels; let `real` return (images, labels)"
            )
        return _share(x).to(device), _share(labels).to(device)

    def latents(self, draws: torch.Generator, device: torch.device) -> Batch:
        """This process's share of a batch of latents; labels are uniform over the classes, not as in the real ones."""
        z, labels = latents_and_labels(self.g, self.settings.batch, draws, device)
        return _share(z), None if labels is None else _share(labels)

    def discriminator_step(
        self, optimizer: Optimizer, real: Batch, latents: Batch, draws: torch.Generator, nimg: int
    ) -> Stats:
        with torch.no_grad():
            fake = self._generate(latents)
        x, labels = real
        if x.shape != fake.shape:
            raise UapgenError(
                f"the real images are {tuple(x.shape)}, the generator's {tuple(fake.shape)}; make them equal"
            )
        both = None if labels is None or latents[1] is None else torch.cat([labels, latents[1]])
        judged = self._judge(torch.cat([x, fake]), both, draws)  # one pass: no batch norm in D, and one power iteration
        on_real, on_fake = judged.logits.chunk(2)
        weight = self._fake_weight(judged, latents[1], nimg)
        total = self._adversarial(on_real, on_fake, weight)
        stats = {"d_loss": total.detach()}
        if judged.classes is not None and both is not None:
            classification = self._classification(judged.classes, both, weight)
            stats["d_classes"] = classification.detach()
            total = total + self.settings.auxiliary * classification
        if weight is not None:
            stats["fake_weight"] = weight.mean()
        optimizer.zero_grad()
        total.backward()
        average_gradients(optimizer)
        optimizer.step()
        return stats | {"d_real": on_real.detach().mean(), "d_fake": on_fake.detach().mean()}

    def generator_step(
        self,
        optimizer: Optimizer,
        real: Batch,
        latents: Batch,
        draws: torch.Generator,
        extra_loss: ExtraLoss | None,
        nimg: int,
    ) -> Stats:
        fake = self._generate(latents)
        judged = self._judge(fake, latents[1], draws)
        with torch.no_grad():
            on_real = self._judge(*real, draws).logits if self.settings.loss.g_needs_real else fake.new_empty(0)
        total = self.settings.loss.g_loss(on_real, judged.logits)
        stats: Stats = {"g_loss": total.detach()}
        if judged.classes is not None and latents[1] is not None:
            classification = cross_entropy(judged.classes, latents[1])
            stats["g_classes"] = classification.detach()
            total = total + self.settings.auxiliary * classification
        if extra_loss:
            extra, numbers = extra_loss(fake, nimg)
            stats |= {"extra_loss": extra.detach(), **numbers}
            total = total + extra
        optimizer.zero_grad()
        total.backward(inputs=list(self.g.parameters()))  # no gradients for D's weights
        average_gradients(optimizer)
        optimizer.step()
        return stats

    def _fake_weight(self, judged: Judgement, labels: Tensor | None, nimg: int) -> Tensor | None:
        if self.settings.fake_weight is None:
            return None
        logits, classes = judged.logits.detach().chunk(2)[1], judged.classes
        on_fake = Judgement(logits, None if classes is None else classes.detach().chunk(2)[1])
        return self.settings.fake_weight(on_fake, labels, nimg)

    def _adversarial(self, on_real: Tensor, on_fake: Tensor, weight: Tensor | None) -> Tensor:
        loss = self.settings.loss
        if weight is None:
            return loss.d_loss(on_real, on_fake)
        assert loss.d_terms is not None, "TrainSettings refuses weights without terms"
        real_terms, fake_terms = loss.d_terms(on_real, on_fake)
        return real_terms.mean() + (weight * fake_terms).mean()

    def _classification(self, classes: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        """Class cross-entropy on real plus that on generated images, both in units of `auxiliary`."""
        factor = self.settings.fake_auxiliary
        if factor is None and weight is None:
            return 2 * cross_entropy(classes, labels)  # the mean over both halves, twice: their sum
        (of_real, of_fake), (real, fake) = classes.chunk(2), labels.chunk(2)
        known = (real != UNLABELLED).sum().clamp(min=1)
        on_real = cross_entropy(of_real, real, ignore_index=UNLABELLED, reduction="sum") / known
        fake_terms = cross_entropy(of_fake, fake, reduction="none")
        on_fake = (fake_terms if weight is None else weight * fake_terms).mean()
        return on_real + (1.0 if factor is None else factor) * on_fake

    def _generate(self, latents: Batch) -> Tensor:
        with torch.autocast(latents[0].device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            return self.g(*latents).float()

    def _judge(self, x: Tensor, labels: Tensor | None, draws: torch.Generator) -> Judgement:
        x = self.settings.augment(x, draws) if self.settings.augment else x
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            judged = self.d.judge(x, labels)
        return Judgement(judged.logits.float(), None if judged.classes is None else judged.classes.float())


def require_finite(stats: Mapping[str, Any]) -> None:
    """Raises UapgenError naming the first of the losses that is not finite."""
    for key, name in NAMES.items():
        value = float(stats.get(key, 0))
        if value - value != 0:  # nan and both infinities
            raise UapgenError(
                f"{name} became {value}; lower the learning rates (or the extra loss's weight) and start again"
            )


def _share(tensor: Tensor) -> Tensor:
    """Every process draws the whole batch, and keeps its part: two processes see what one would."""
    return tensor if world() == 1 else tensor.chunk(world())[rank()]
