"""What every source of crafting images offers, sources made of sources, and two regularities of natural images that
procedural ones borrow: correlated colours and 1/f spectra.

Ruderman and Bialek, "Statistics of natural images" (1994): amplitude falls as one over frequency. Ohta, Kanade and
Sakai, "Color information for region segmentation" (1980): brightness varies most, then red against blue, then green.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UsageError
from ..images.warp import random_resized_crops
from ..perturbation.card import DATA_CLASSES
from ..runtime import rng, uniform

Size = int | tuple[int, int]  # pixels: one side for both, or (H,W)
Device = torch.device | str


class ProxySource(Protocol):
    """Images to craft on. What `batch` returns depends on n and the generator's state only, not on the device."""

    @property
    def data_class(self) -> str:
        """`none` (no image was seen), `proxy` (images of another domain) or `driven` (of the victim's domain)."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the card says about the source; JSON."""
        ...

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1] on the source's device; `generator` is a CPU generator."""
        ...


def combined_class(sources: Iterable[ProxySource]) -> str:
    """The class of a run that used all of `sources`: the one that saw most. `none` for no source at all."""
    return max((source.data_class for source in sources), key=DATA_CLASSES.index, default=DATA_CLASSES[0])


def as_size(size: Size) -> tuple[int, int]:
    """(H,W) of `size`. Raises UsageError for sides below 8 pixels."""
    h, w = (size, size) if isinstance(size, int) else size
    if min(h, w) < 8:
        raise UsageError(f"proxy images of {h}x{w} are too small; expected sides of 8 pixels or more")
    return h, w


class Mixture:
    """Each image comes from one of `sources`, drawn by weight. Its data class is that of the source that saw most.

    Raises UsageError for no source, or weights that are negative or all zero.
    """

    def __init__(self, sources: Sequence[tuple[ProxySource, float]]) -> None:
        weights = [float(weight) for _, weight in sources]
        if not weights or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise UsageError(f"a mixture needs sources with weights >= 0, not all zero; got weights {weights}")
        self.sources = [source for source, _ in sources]
        self.weights = torch.tensor(weights) / sum(weights)

    @property
    def data_class(self) -> str:
        return combined_class(self.sources)

    def describe(self) -> dict[str, Any]:
        parts = zip(self.sources, self.weights.tolist(), strict=True)
        return {
            "source": "mixture",
            "parts": [{"weight": round(weight, 6), **part.describe()} for part, weight in parts],
        }

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) in random order; a source that is drawn 0 times is not asked."""
        drawn = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        counts = torch.bincount(drawn, minlength=len(self.sources)).tolist()
        parts = [source.batch(k, generator) for source, k in zip(self.sources, counts, strict=True) if k]
        if len({part.shape[1:] for part in parts}) > 1:
            shapes = ", ".join(str(tuple(part.shape[1:])) for part in parts)
            raise UsageError(f"the sources of a mixture give images of different shapes: {shapes}")
        images = torch.cat(parts)
        return images[drawn.argsort(stable=True).argsort().to(images.device)]


class Pool:
    """`n` images of `source`, made at the first draw and held as bytes; each batch is a random choice among them.

    Procedural images cost about as much time as an image-gradient on a small victim, and a pattern does not care
    whether it meets one twice. Which images the pool holds depends on `seed` alone.
    """

    def __init__(self, source: ProxySource, n: int, seed: int) -> None:
        self.source, self.n, self.seed = source, n, seed
        self._images: Tensor | None = None

    @property
    def data_class(self) -> str:
        return self.source.data_class

    def describe(self) -> dict[str, Any]:
        return {**self.source.describe(), "pool": self.n}

    @property
    def images(self) -> Tensor:
        """All of them, (n,3,H,W) uint8."""
        if self._images is None:
            parts = [
                (self.source.batch(min(32, self.n - i), rng(self.seed, "pool", i)) * 255).round().to(torch.uint8)
                for i in range(0, self.n, 32)
            ]
            self._images = torch.cat(parts)
        return self._images

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W) float32 in [0,1], multiples of 1/255."""
        picked = torch.randint(0, self.n, (n,), generator=generator)
        return self.images[picked.to(self.images.device)].float() / 255


class DeltaCrops:
    """Detached random crops of prior image + current delta: "pseudo-semantic" images that look like the perturbation.

    The samples of PSP-UAP (CVPR 2025). `current` gives the delta (3,H,W) or (1,3,H,W) in pixel units at each call;
    `crops` is how many crops one prior image serves (10 in PSP-UAP). The paper's code does not clip; `clip=True` keeps
    the contract that images are in [0,1].
    """

    def __init__(
        self,
        prior: ProxySource,
        current: Callable[[], Tensor],
        *,
        crops: int = 10,
        scale: tuple[float, float] = (0.08, 1.0),
        clip: bool = True,
    ) -> None:
        self.prior, self.current = prior, current
        self.crops, self.scale, self.clip = crops, scale, clip

    @property
    def data_class(self) -> str:
        return self.prior.data_class

    def describe(self) -> dict[str, Any]:
        own = {"crops": self.crops, "scale": list(self.scale), "clip": self.clip}
        return {"source": "delta-crops", **own, "prior": self.prior.describe()}

    @torch.no_grad()
    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,3,H,W); in [0,1] unless `clip=False`, when they reach eps beyond."""
        base = self.prior.batch(-(-n // self.crops), generator)
        delta = self.current().detach().to(base.device, base.dtype).view(1, *base.shape[1:])
        images = random_resized_crops(base + delta, n, generator, scale=self.scale)
        return images.clamp_(0, 1) if self.clip else images


# Rows: red against blue, green against magenta; each of unit length and without brightness.
CHROMA = torch.tensor([[0.70711, 0.0, -0.70711], [-0.40825, 0.8165, -0.40825]])


def colours(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """RGB colours (*shape,3) in [0,1]: any brightness, mostly dull, sometimes saturated, least near black and white."""
    brightness = uniform(0.04, 0.96, (*shape, 1), generator)
    chroma = torch.randn((*shape, 2), generator=generator) * torch.tensor([0.40, 0.17])
    room = 0.2 + 3.2 * brightness * (1 - brightness)
    return (brightness + (chroma * room * torch.rand((*shape, 1), generator=generator)) @ CHROMA).clamp(0, 1)


def power_law_fields(
    size: tuple[int, int],
    exponent: Tensor,
    generator: torch.Generator,
    *,
    channels: int = 1,
    angle: Tensor | None = None,
    stretch: Tensor | None = None,
) -> Tensor:
    """Gaussian fields (n,channels,H,W), periodic, of mean 0 and variance 1, with amplitude spectra 1/f^exponent.

    `exponent`, `angle` (radians) and `stretch` have shape (n,); a stretch of k makes streaks k times longer than wide.
    Returned on the CPU.
    """
    h, w = size
    fy = torch.fft.fftfreq(h).view(1, h, 1)
    fx = torch.fft.rfftfreq(w).view(1, 1, -1)
    if angle is not None and stretch is not None:
        cos, sin, k = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1), stretch.view(-1, 1, 1)
        fx, fy = k * (fx * cos + fy * sin), fy * cos - fx * sin
    frequency = (fx.square() + fy.square()).sqrt().clamp_min(0.5 / max(h, w))
    amplitude = frequency.log().mul(-exponent.view(-1, 1, 1)).exp()
    amplitude[:, 0, 0] = 0  # no mean
    noise = torch.randn((len(exponent), channels, h, w // 2 + 1, 2), generator=generator)
    fields = torch.fft.irfft2(torch.view_as_complex(noise) * amplitude.unsqueeze(1), s=size)
    return fields / fields.std((2, 3), keepdim=True).clamp_min(1e-12)
