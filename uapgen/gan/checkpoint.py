"""What a GAN's training keeps: its state on disk, and the moving average of its generator."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..distributed import from_main
from ..errors import UapgenError, UsageError
from ..runfolder import RunFolder, load_optimizer_tensors, optimizer_tensors

NAME = "gan"


class Stateful(Protocol):
    """Anything whose state is a flat mapping of tensors: modules, `ClassFrequency`, `RunningMean`."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor], /) -> Any: ...


@dataclass(frozen=True)
class Checkpoint:
    """Saves and restores named parts and optimisers in `folder`; a name is a prefix of tensor names in the file."""

    folder: RunFolder
    parts: dict[str, Stateful]
    optimizers: dict[str, Optimizer]

    def save(self, nimg: int) -> None:
        """Writes the state. Raises UapgenError, and leaves the last file as it is, when a tensor is not finite."""
        tensors = {f"{part}.{name}": t for part, held in self.parts.items() for name, t in held.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= optimizer_tensors(optimizer, name)
        broken = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
        if broken:
            raise UapgenError(f"{broken} is not finite after {nimg} images; start again with lower learning rates")
        self.folder.save(NAME, tensors, {"nimg": nimg})

    def load(self) -> int:
        """Restores the last state and returns its number of images.

        A new run saves its start, so that a log that was cut short before the first save is cut back too.
        Raises UapgenError when the file does not fit these parts.
        """
        held = from_main(lambda: self.folder.load(NAME))
        if held is None:
            self.save(0)
            return 0
        tensors, meta = held
        try:
            for part, target in self.parts.items():
                target.load_state_dict({k[len(part) + 1 :]: v for k, v in tensors.items() if k.startswith(part + ".")})
            for name, optimizer in self.optimizers.items():
                load_optimizer_tensors(optimizer, name, tensors)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise UapgenError(f"{self.folder.path} holds another GAN ({reason}); choose another folder") from error
        return meta["nimg"]


def check_halflife(halflife: float) -> None:
    """Raises UsageError for one that is not positive."""
    if not halflife > 0:
        raise UsageError(f"EMA half-life {halflife} is not positive; it is counted in images, e.g. 10000")


Module = TypeVar("Module", bound=nn.Module)


class Ema(Generic[Module]):
    """`.module` is the average of `source`, in eval mode, without gradients; it equals `source` until `start` images.

    halflife: in images, so that it means the same for every batch size. The published decay of 0.9999 a step at batch
    256 is 1.77 million images; the published start, 20,000 steps of 256, is 5.12 million.
    """

    def __init__(self, source: Module, *, halflife: float, start: int = 0) -> None:
        check_halflife(halflife)
        self.halflife, self.start = halflife, start
        self.module: Module = copy.deepcopy(source).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module, nimg: int, batch: int) -> None:
        """Call after each step: `nimg` images were seen in all, `batch` of them in this step."""
        decay = 0.0 if nimg <= self.start else 0.5 ** (batch / self.halflife)
        averages = self.module.state_dict()
        for name, value in source.state_dict().items():
            if decay and value.is_floating_point():
                averages[name].lerp_(value, 1 - decay)
            else:  # batch norm's step counter has no average
                averages[name].copy_(value)
