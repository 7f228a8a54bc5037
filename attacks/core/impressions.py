"""Class impressions: images that a victim dreams up for its own classes (Mopuri et al., ECCV 2018, "Ask, Acquire and
Attack"). Data-free proxies, for any method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import UapgenError
from ...images.warp import Shake
from ...proxies import ProxySource
from ...runtime import uniform
from .optimise import repeat
from .run import Crafting

BETAS = (0.9, 0.999)  # Adam's own


@dataclass(frozen=True)
class ImpressionSettings:
    """How impressions are made; pixel units. The published numbers, but for `slots` (one image at a time there) and
    `steps` (1500 there, of which hundreds buy little at our budgets).
    """

    slots: int = 16  # images that climb at the same time
    lr: float = 10 / 255
    confidence: tuple[float, float] = (0.55, 0.99)  # each image's goal is drawn from this range
    steps: int = 200  # an image that is not there by then is given up
    most: int = 1000  # impressions; then the stage ends
    shake: Shake = field(default_factory=Shake)


class ClassImpressions:
    """A proxy source of impressions `images` (N,3,H,W) uint8, with their `classes` (N,) and `confidences` (N,)."""

    def __init__(
        self, images: Tensor, classes: Tensor, confidences: Tensor, *, start: ProxySource | None = None
    ) -> None:
        self.images, self.classes, self.confidences, self.start = images, classes, confidences, start

    @property
    def data_class(self) -> str:
        """`none`, unless the ascents started from images of a source that saw more."""
        return self.start.data_class if self.start else "none"

    def __len__(self) -> int:
        return len(self.images)

    def describe(self) -> dict[str, Any]:
        return {
            "source": "class-impressions",
            "size": list(self.images.shape[2:]),
            "n": len(self),
            "classes": len(self.classes.unique()),
            "confidence": [round(end.item(), 4) for end in (self.confidences.min(), self.confidences.max())],
            **({"start": self.start.describe()} if self.start else {}),
        }

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1], multiples of 1/255, drawn with replacement."""
        pick = torch.randint(0, len(self), (n,), generator=generator).to(self.images.device)
        return self.images[pick].float() / 255

    def split(self, n: int) -> tuple[ClassImpressions, ClassImpressions]:
        """The first `n` and the others; raises UapgenError when either would be empty."""
        if not 0 < n < len(self):
            raise UapgenError(f"{len(self)} class impressions cannot be split at {n}; give impressions a larger budget")
        parts = (slice(n), slice(n, None))
        held, rest = (
            ClassImpressions(self.images[p], self.classes[p], self.confidences[p], start=self.start) for p in parts
        )
        return held, rest


def class_impressions(
    run: Crafting, settings: ImpressionSettings, *, images: int, start: ProxySource | None = None
) -> ClassImpressions:
    """Spends up to `images` image-gradients on impressions of random classes; a class comes again after all others.

    Ascends the class's logit by Adam from mid-grey with N(0,1) levels of noise, or from images of `start`, under random
    rotation, scale, shift, colour jitter and noise, until the confidence on the image itself, rounded to 8 bits,
    passes its goal. Where that happens to fewer images than there are slots, those on their way are added as they are.
    """
    slots = max(2, min(settings.slots, images // 40))
    climb = _Climb(run, settings, slots, start)
    repeat(run, "impressions", climb, climb.advance, images, lambda: len(climb.made["classes"]) >= settings.most)
    made = climb.made
    run.notes["impressions"] = {"made": len(made["classes"]), "given_up": climb.given_up}
    if len(made["classes"]) < slots:
        made = climb.with_those_at(torch.ones(slots, dtype=torch.bool), climb.now())
    return ClassImpressions(made["images"], made["classes"], made["confidences"], start=start)


class _Climb:
    """`slots` images on their way up, and those that arrived; the state of `repeat`."""

    def __init__(self, run: Crafting, settings: ImpressionSettings, slots: int, start: ProxySource | None) -> None:
        self.run, self.settings, self.start = run, settings, start
        device, size = run.victim.device, run.victim.input_size
        self.order = torch.randperm(run.victim.num_classes, generator=run.rng("impressions", "classes")).to(device)
        self.begun = self.given_up = 0
        image, number = torch.zeros(slots, *size, device=device), torch.zeros(slots, device=device)
        self.at = {"images": image, "mean": image, "square": image}
        self.at |= {"steps": number, "lr": number, "goals": number, "classes": number.long()}
        none = torch.zeros(0, device=device)
        pixels = torch.zeros(0, *size, dtype=torch.uint8, device=device)
        self.made = {"images": pixels, "classes": none.long(), "confidences": none}
        self._begin(torch.ones(slots, dtype=torch.bool, device=device), run.rng("impressions", "start"))

    def advance(self, generator: torch.Generator) -> dict[str, Any]:
        before, confidence = self.at["images"], self._climb(generator)
        # A step that leaps over the range is taken back and tried at half its length.
        over = confidence > self.settings.confidence[1]
        self.at["images"] = torch.where(over.view(-1, 1, 1, 1), before, self.at["images"])
        self.at["lr"] = torch.where(over, self.at["lr"] / 2, self.at["lr"])
        there = ~over & (confidence >= self.at["goals"])
        if there.any():
            self.made = self.with_those_at(there, confidence)
        lost = ~there & (self.at["steps"] >= self.settings.steps)
        self.given_up += int(lost.sum())
        self._begin(there | lost, generator)
        return {"made": len(self.made["classes"]), "confidence": round(confidence.mean().item(), 4)}

    def with_those_at(self, slots: Tensor, confidences: Tensor) -> dict[str, Tensor]:
        """What is made and the images in `slots` (slots,) bool, as 8 bits."""
        now = {"images": _bytes(self.at["images"]), "classes": self.at["classes"], "confidences": confidences}
        return {key: torch.cat([value, now[key][slots.to(value.device)]]) for key, value in self.made.items()}

    def now(self) -> Tensor:
        """The victim's confidence (slots,) in each image's class, on the image as 8 bits hold it; forward only."""
        pixels = _bytes(self.at["images"]).float() / 255
        logits = self.run.look(self.run.victim, pixels)
        return logits.softmax(1).gather(1, self.at["classes"].unsqueeze(1)).squeeze(1)

    def _climb(self, generator: torch.Generator) -> Tensor:
        """One step of Adam up the logits; the confidences after it."""
        at, (b1, b2) = self.at, BETAS
        x = at["images"].detach().requires_grad_(True)
        logits = self.run.victim(self.settings.shake(x, generator))
        (up,) = torch.autograd.grad(logits.gather(1, at["classes"].unsqueeze(1)).sum(), x)
        (up,) = self.run.victim.summed([up])
        at["steps"] = at["steps"] + 1
        at["mean"], at["square"] = b1 * at["mean"] + (1 - b1) * up, b2 * at["square"] + (1 - b2) * up.square()
        t, lr = (at[key].view(-1, 1, 1, 1) for key in ("steps", "lr"))
        scale = (at["square"] / (1 - b2**t)).sqrt()
        at["images"] = (x.detach() + lr * at["mean"] / (1 - b1**t) / (scale + 1e-12)).clamp(0, 1)
        return self.now()

    def _begin(self, which: Tensor, generator: torch.Generator) -> None:
        """Puts new images of the next classes into the slots `which` (slots,) bool."""
        slots = which.nonzero().squeeze(1)
        n = len(slots)
        if not n:
            return
        low, high = self.settings.confidence
        noise = 0.5 + torch.randn(n, *self.at["images"].shape[1:], generator=generator) / 255
        fresh = self.start.batch(n, generator) if self.start else noise.clamp(0, 1)
        places = torch.arange(self.begun, self.begun + n, device=slots.device) % len(self.order)
        self.begun += n
        new = {"images": fresh, "goals": uniform(low, high, (n,), generator), "classes": self.order[places]}
        new["lr"] = torch.full((n,), self.settings.lr)
        for key, value in self.at.items():
            self.at[key] = value.index_copy(0, slots, new[key].to(value) if key in new else torch.zeros_like(value[:n]))

    def tensors(self) -> dict[str, Tensor]:
        parts = {f"at.{key}": value for key, value in self.at.items()}
        parts |= {f"made.{key}": value for key, value in self.made.items()}
        return {**parts, "counters": torch.tensor([self.begun, self.given_up])}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.at = {key: tensors[f"at.{key}"] for key in self.at}
        self.made = {key: tensors[f"made.{key}"] for key in self.made}
        self.begun, self.given_up = tensors["counters"].tolist()


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)
