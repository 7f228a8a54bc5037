"""What --dry-run says of the cost, from one batch on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..images.sets import ImageSet
    from ..perturbation import Perturbation
    from ..victims import Victim


def evaluation_cost(
    uaps: Sequence[Perturbation], victim: Victim, images: ImageSet, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Forward passes in all, and seconds with one process that decodes; without the attacks of --per-image."""
    from ..evaluation.fooling import noise_floors

    shown = min(options["batch_size"], len(images))
    views = (1 + len(uaps) + len(noise_floors(uaps, 0))) * (1 + len(options["defences"]))
    started = time.perf_counter()
    for position in range(min(8, len(images))):
        images[position]
    decoding = (time.perf_counter() - started) / min(8, len(images))
    return {
        "forward_passes": views * len(images),
        "seconds": round(len(images) * (decoding + views * seconds_per_image(victim, shown)), 1),
    }


def seconds_per_image(victim: Victim, images: int, *, gradient: bool = False) -> float:
    """Seconds that `victim` takes for one of `images` in a batch: a forward pass, or an image-gradient."""
    import torch

    x = torch.full((images, *victim.input_size), 0.5, device=victim.device)

    def forward() -> None:
        with torch.inference_mode():
            victim(x)

    def backward() -> None:
        delta = torch.zeros_like(x[:1], requires_grad=True)
        victim(x + delta).square().mean().backward()

    return _seconds(backward if gradient and victim.differentiable else forward, x) / images


def _seconds(work: Callable[[], None], x: Tensor) -> float:
    import torch

    work()  # what the first batch allocates and compiles is not the price of the others
    started = time.perf_counter()
    work()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
