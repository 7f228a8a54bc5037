"""What a run says of itself, for TensorBoard: an extra that needs the package of that name."""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import Any

from .distributed import is_main
from .errors import UsageError


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
