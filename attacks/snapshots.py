"""Patterns on the way: what a run had at some shares of its budget, for curves of fooling rate over cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from ..distributed import is_main
from ..runfolder import load_state, save_state


class Snapshots:
    """Keeps the first pattern offered at or after each of `marks` (image-gradients), as `folder`/at-MARK.safetensors.

    Written at once, and not again after an interruption: a resumed run offers the same patterns.
    """

    def __init__(self, folder: str | Path, marks: Sequence[int]) -> None:
        self.folder, self.marks = Path(folder), sorted(marks)

    def offer(self, image_gradients: int, delta: Callable[[], Tensor]) -> None:
        for mark in self.marks if is_main() else ():
            if image_gradients >= mark and not self._file(mark).is_file():
                self.folder.mkdir(parents=True, exist_ok=True)
                save_state(self._file(mark), {"delta": delta()}, {"image_gradients": image_gradients})

    def read(self) -> list[tuple[int, Tensor]]:
        """(image-gradients, delta (1,C,H,W)) of what is there, in order of cost."""
        states = [load_state(self._file(mark)) for mark in self.marks if self._file(mark).is_file()]
        return [(meta["image_gradients"], tensors["delta"]) for tensors, meta in states]

    def _file(self, mark: int) -> Path:
        return self.folder / f"at-{mark}.safetensors"
