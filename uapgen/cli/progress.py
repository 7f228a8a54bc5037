"""The progress bar of a long command, on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

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
            from ..tensorboard import Scalars

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
