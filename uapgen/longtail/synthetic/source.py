"""Generated training data: one or several generators, transformed, filtered; fixed, or fresh in every epoch.

Slim, "Boosting generative networks for incremental learning", 2020, sections 3 and 5.

The filter keeps the samples that a classifier of real images agrees with (Pham et al., 2019; Slim, 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...errors import UapgenError, UsageError
from ...gan import GeneratorNetwork, sampler
from ...gan.sampling import Sampler
from ...images.warp import crop, draw_crops
from ...runtime import rng
from ...victims import Victim
from ..data import LabelledImages, Stream

HEAD = 1024  # images of a stream that its mean and deviation are measured on


@dataclass(frozen=True)
class Transform:
    """Random crops out of `pad` black pixels around the image; half of the images mirrored if `flip`."""

    pad: int = 4
    flip: bool = False

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        crops = draw_crops(len(images), draws, pad=self.pad, flip=self.flip, device=images.device)
        return crop(images, crops, pad=self.pad)


@dataclass(frozen=True)
class Source:
    """Batches of labelled images: sample, round to 8 bits, transform, then filter, so that the filter sees what the
    classifier will see. All images are 8-bit, as files are; the published code rounded only where it transformed.

    samples: one function for each generator. shares: the chance of each to make a whole batch; equal by default.
    Raises UsageError for shares that are no probabilities of these generators, and for a filter of other classes.
    """

    samples: tuple[Sampler, ...]
    num_classes: int
    shares: tuple[float, ...] | None = None
    transform: Transform | None = None
    keep: ClassifierFilter | None = None

    def __post_init__(self) -> None:
        if not self.samples:
            raise UsageError("a source of generated images needs at least one generator")
        if self.shares is not None:
            check_shares(self.shares, len(self.samples))
        if self.keep and self.keep.classifier.num_classes != self.num_classes:
            raise UsageError(
                f"the filter's classifier has {self.keep.classifier.num_classes} classes, the images "
                f"{self.num_classes}; give one that was trained on these classes"
            )

    def pick(self, draws: torch.Generator) -> Sampler:
        """The generator of one batch, drawn by `shares`."""
        shares = self.shares or (1.0,) * len(self.samples)
        weights = torch.tensor(shares, dtype=torch.float64, device=draws.device)
        return self.samples[int(torch.multinomial(weights, 1, generator=draws))]

    def batch(self, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """(n,3,H,W) uint8 and labels (n,), all from one generator. Raises UapgenError where the filter starves."""
        fresh = partial(self._fresh, self.pick(draws))
        return self.keep.fill(fresh, n, draws) if self.keep else fresh(n, draws)

    def _fresh(self, sample: Sampler, n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        images, labels = sample(n, draws)
        levels = images.clamp(0, 1).mul(255).round().byte()
        return (self.transform(levels, draws) if self.transform else levels), labels

    def batches(self, images: int, batch: int, draws: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """`images` in all, `batch` at a time, the last one shorter."""
        for start in range(0, images, batch):
            yield self.batch(min(batch, images - start), draws)

    def dataset(self, images: int, *, batch: int, seed: int, name: str) -> LabelledImages:
        """A fixed set: made once, and with it the crops and flips, which no epoch changes (as published)."""
        if images < 1 or batch < 1:
            raise UsageError(f"{images} generated images in batches of {batch}; expected at least 1 of each")
        parts = list(self.batches(images, batch, rng(seed, "synthetic-fixed")))
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        return LabelledImages(x, y, self.num_classes, name)

    def stream(self, images: int, *, batch: int, seed: int, name: str) -> Stream:
        """`images` fresh ones in every epoch, decided by the seed and the epoch's number."""
        head = self.dataset(max(HEAD, batch), batch=batch, seed=seed, name=f"{name}, fresh in every epoch")
        return Stream(head, images, lambda epoch: self.batches(images, batch, rng(seed, "synthetic-epoch", epoch)))


def check_shares(shares: tuple[float, ...], n: int) -> None:
    """Raises UsageError unless these are n probabilities."""
    if len(shares) != n or not all(share >= 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(
            f"generator shares {shares} for {n} generators (sum {sum(shares):g}); expected {n} numbers of at least 0 "
            "that sum to 1"
        )


def samplers(
    generators: Sequence[GeneratorNetwork], num_classes: int, *, psi: float | None = None
) -> tuple[Sampler, ...]:
    """A `Sampler` of each generator, which goes into eval mode, with uniform labels; images stay on its device.

    psi: latents from the normal distribution cut off at |z| = psi (Brock et al., 2019) instead of N(0, I).
    Raises UsageError for a generator of other classes than `num_classes`, or of none, and for psi <= 0.
    """
    for generator in generators:
        if generator.num_classes != num_classes:
            has = f"{generator.num_classes} classes" if generator.num_classes else "no classes"
            raise UsageError(f"the generator has {has}, the data {num_classes}; train one on these classes")
    return tuple(sampler(generator, labels="first", psi=psi) for generator in generators)


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
