"""How a classifier for imbalanced data is trained: lengths, rates, loss, augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained. Epochs and shares of them, so that a short run keeps the shape of the long one.

    The defaults are the published recipe: Cao et al., 2019, with the focal loss that Rangwani et al., 2021, used.

    loss: ce, focal or ldam (which brings a cosine head). deferred: class weights from `decay_at[0]` on (DRW).
    decay_at, decays: from which share of the epochs on the rate is lr times which factor.
    flip: mirrors half of the images; None asks the data. pad: black pixels around the random crop, 0 is no crop.
    """

    depth: int = 32
    width: int = 16
    loss: str = "focal"
    deferred: bool = True
    epochs: int = 200
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    warmup: int = 5
    decay_at: tuple[float, ...] = (0.8, 0.9)
    decays: tuple[float, ...] = (0.01, 0.0001)
    pad: int = 4
    flip: bool | None = None

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0: linear warm-up, then steps."""
        if epoch < self.warmup:
            return self.lr * (epoch + 1) / self.warmup
        passed = [f for at, f in zip(self.decay_at, self.decays, strict=True) if epoch >= round(at * self.epochs)]
        return self.lr * (passed[-1] if passed else 1.0)

    def reweights(self, epoch: int) -> bool:
        return self.deferred and bool(self.decay_at) and epoch >= round(self.decay_at[0] * self.epochs)

    @property
    def weighs_classes(self) -> bool:
        """Whether the loss depends on how many images each class has."""
        return self.deferred or self.loss == "ldam"

    def check(self) -> None:
        """Raises UsageError when the numbers make no recipe."""
        if self.epochs < 1 or self.batch < 2 or self.pad < 0 or not self.lr > 0:
            given = f"{self.epochs} epochs, batch {self.batch}, pad {self.pad}, lr {self.lr}"
            raise UsageError(f"classifier recipe with {given}; expected at least 1, 2 and 0, and a positive rate")
        if len(self.decay_at) != len(self.decays) or list(self.decay_at) != sorted(self.decay_at):
            raise UsageError(f"decay_at {self.decay_at} and decays {self.decays} must pair up, earliest first")
