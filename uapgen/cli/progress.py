"""What a long command says of itself: a progress bar on stderr, TensorBoard, and what --dry-run says of the cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..distributed import is_main
from ..errors import UsageError

SHOWN = ("loss", "classes", "kl_mean", "similarity", "saturation")


class Progress:
    """One tqdm bar on stderr for all stages of a run, with the time left; the stage is its label.

    Counts in `unit`, image-gradients unless said. `tensorboard` is a folder for the numbers too.
    """

    def __init__(self, tensorboard: Path | None = None, unit: str = "img") -> None:
        self._unit = unit
        self._bar: Any = None
        self._scalars: Any = None
        if tensorboard:
            pass

            self._scalars = Scalars(tensorboard)

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, Any]) -> None:
        """Shows that `done` of the run's `total` are behind it, the last of them in `stage`."""
        from tqdm import tqdm

        label = f"{stage:<9}"
        if self._bar is None:
            self._bar = tqdm(
                desc=label,
                total=total,
                initial=done,  # of a run that goes on, what is done already is no part of the speed
                unit=self._unit,
                file=sys.stderr,
                mininterval=1.0,
                dynamic_ncols=True,
            )
        self._bar.set_description_str(label, refresh=False)
        self._bar.set_postfix({name: figures[name] for name in SHOWN if name in figures}, refresh=False)
        self._bar.update(done - self._bar.n)
        if self._scalars is not None:
            self._scalars(stage, done, total, figures)

    def close(self) -> None:
        """Ends the run; a call after this one starts another bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._scalars is not None:
            self._scalars.close()


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


class Scalars:
    """A callback `(stage, done, total, figures)` that writes every number as a scalar over `done`, the images so far.

    Each stage is a run of its own, `folder/STAGE`. A run that goes on where it was interrupted writes over what it had
    written beyond that point. Raises UsageError at once where the package is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                f"--tensorboard {folder} needs a package that is not here; pip install 'uapgen[tensorboard]'"
            ) from error
        self._open, self._folder = SummaryWriter, Path(folder)
        self._stage = ""
        self._writer: Any = None

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, Any]) -> None:
        if not is_main():
            return
        if stage != self._stage:
            self.close()
            self._stage = stage
            self._writer = self._open(str(self._folder / stage), purge_step=done)
        assert self._writer is not None
        for name, value in figures.items():
            if isinstance(value, Real) and not isinstance(value, bool):
                self._writer.add_scalar(name, float(value), done)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._stage, self._writer = "", None
