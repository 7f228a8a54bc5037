"""Progress bars for long commands, on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SHOWN = ("loss", "classes", "kl_mean", "similarity", "saturation")


class Progress:
    """A tqdm bar a stage on stderr, in units that are image-gradients unless said; `tensorboard` is a folder for its
    numbers too.
    """

    def __init__(self, tensorboard: Path | None = None, unit: str = "img") -> None:
        self._unit = unit
        self._stage = ""
        self._bar: Any = None
        self._scalars: Any = None
        if tensorboard:
            from ..tensorboard import Scalars

            self._scalars = Scalars(tensorboard)

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, Any]) -> None:
        from tqdm import tqdm

        if stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = tqdm(
                total=total,
                initial=done,  # of a run that goes on, what is done already is no part of the speed
                desc=f"{stage:<9}",
                unit=self._unit,
                file=sys.stderr,
                mininterval=1.0,
                dynamic_ncols=True,
            )
        assert self._bar is not None
        self._bar.set_postfix({name: figures[name] for name in SHOWN if name in figures}, refresh=False)
        self._bar.update(done - self._bar.n)
        if self._scalars is not None:
            self._scalars(stage, done, total, figures)

    def close(self) -> None:
        """Ends the stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._scalars is not None:
            self._scalars.close()
