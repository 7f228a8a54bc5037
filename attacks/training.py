"""What the methods that train a network on the victim share: resumable state, marks, images held back from training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UapgenError
from ..proxies import ProxySource
from ..runfolder import load_optimizer_tensors, optimizer_tensors
from .crafting import Crafting

TRIES = 20


class Training:
    """A network and its optimiser, as the state of `repeat`."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"net.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return {**weights, **optimizer_tensors(self.optimizer, "adam")}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.network.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        load_optimizer_tensors(self.optimizer, "adam", tensors)


def step(run: Crafting, optimizer: torch.optim.Optimizer, loss: Tensor, images: int) -> None:
    """One step of `optimizer` down `loss`; counts `images` image-gradients. Raises UapgenError for a loss that is not
    finite.
    """
    if not torch.isfinite(loss):
        raise UapgenError("the generator's loss is not finite; try --precision fp32, or a smaller lr")
    optimizer.zero_grad()
    loss.backward()
    sum_gradients(run, optimizer)
    optimizer.step()
    run.cost.image_gradients += images


def sum_gradients(run: Crafting, optimizer: torch.optim.Optimizer) -> None:
    """What is in the gradients of the optimiser's parameters, over all processes."""
    if run.victim.shared:
        parts = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for part, gradient in zip(parts, run.victim.summed(parts), strict=True):
            part.copy_(gradient)


def offer(run: Crafting, pattern: Callable[[], Tensor]) -> None:
    """`run.snapshot` of a pattern (1,C,H,W) that takes a forward pass of the network: only where somebody asked."""
    if run.snapshots and run.snapshots.marks:
        with torch.no_grad():
            run.snapshot(pattern())


def strength(patterns: Tensor, eps: float) -> float:
    """Mean |delta| / eps. A tanh never quite meets the bound, so that the share of pixels there says nothing."""
    return round((patterns.detach().abs().mean() / eps).item(), 4)


def shrunk(batch: int, images: int, min_steps: int, least: int = 4) -> int:
    """The largest even batch up to `batch` that leaves `min_steps` steps within `images`, but no less than `least`."""
    return max(least, min(batch, images // min_steps)) // 2 * 2


class Without:
    """`source` without the images `held` (n,C,H,W), as far as they come out of it again.

    Folders draw with replacement: an image that was set aside for choosing would turn up in training too. Raises
    UapgenError, at a draw, when nearly nothing else is left.
    """

    def __init__(self, source: ProxySource, held: Tensor) -> None:
        self.source = source
        self._held = _fingerprints(held)

    @property
    def data_class(self) -> str:
        return self.source.data_class

    def describe(self) -> dict[str, Any]:
        return self.source.describe()

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n,C,H,W) float32 in [0,1], none of them among those held back."""
        parts: list[Tensor] = []
        missing = n
        for _ in range(TRIES):
            images = self.source.batch(missing, generator)
            parts.append(images[~torch.isin(_fingerprints(images), self._held)])
            missing -= len(parts[-1])
            if not missing:
                return torch.cat(parts)
        raise UapgenError(
            f"hardly an image is left beside the {len(self._held)} held back for choosing a pattern;"
            " give more images, or a smaller held_out"
        )


def _fingerprints(images: Tensor) -> Tensor:
    """One integer an image, equal for equal pixels whatever the batch: sums of integers have no order."""
    pixels = (images * 255).round().long().flatten(1)
    weights = torch.arange(pixels.shape[1], device=images.device) * 40503 % 65521 + 1
    return (pixels * weights).sum(1)
