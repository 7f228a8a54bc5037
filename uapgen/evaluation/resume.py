"""Predictions as they come, kept on disk, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from torch import Tensor

from .. import distributed
from ..errors import UapgenError
from ..runfolder import RunFolder, load_state, save_state

SAVE_EVERY = 2048  # images of one rank


@dataclass(frozen=True)
class Session:
    """How a person runs an evaluation: predictions are kept in `folder` as they come, so that the same call goes on
    after an interruption; `restart` discards what it holds. `progress` shows a bar.
    """

    folder: str | Path | None = None
    restart: bool = False
    progress: bool = False

    def open(self, name: str, options: dict[str, Any]) -> RunFolder | None:
        """Where predictions of the victim `name` are kept; those of anything but `options` are refused."""
        if self.folder is None:
            return None
        path = Path(self.folder) / quote(name, safe="")
        held = RunFolder(path, options, restart=self.restart) if distributed.is_main() else None
        distributed.all_gather_objects(None)  # the others look after the main rank has made or emptied it
        return held or RunFolder(path, options)


class Ledger:
    """`held` (rows, N) int64 on the CPU: class + 1, zero where another rank works or nothing could be read, so that the
    sum over ranks is the whole answer. `corrupt` lists (position, reason).

    With a `folder` each rank saves its part every 2048 images; whichever ranks come back share what is missing.
    """

    def __init__(self, rows: int, images: int, folder: RunFolder | None = None) -> None:
        self.held = torch.zeros(rows, images, dtype=torch.int64)
        self.corrupt: list[tuple[int, str]] = []
        self._path = folder.path if folder else None
        self._unsaved = 0
        self.missing = list(range(images))
        if self._path:
            self._resume(self._path)

    def add(self, classes: Tensor, positions: Tensor, corrupt: list[tuple[int, str]]) -> None:
        """Predictions (rows, B) of the images at `positions` (B,)."""
        self.held[:, positions] = classes.cpu() + 1
        self.corrupt += corrupt
        self._unsaved += len(positions)
        if self._unsaved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        if self._path:
            part = self._path / f"part-{distributed.rank()}.safetensors"
            save_state(part, {"classes": self.held.int()}, {"corrupt": self.corrupt})
            self._unsaved = 0

    def _resume(self, path: Path) -> None:
        whole = self.held.clone()
        corrupt: set[tuple[int, str]] = set()
        for part in sorted(path.glob("part-*.safetensors")):
            tensors, meta = load_state(part)
            if tensors["classes"].shape != whole.shape:
                raise UapgenError(
                    f"{part} holds {tuple(tensors['classes'].shape)} predictions; delete it to start again"
                )
            whole = torch.maximum(whole, tensors["classes"].long())
            corrupt |= {(int(position), str(reason)) for position, reason in meta["corrupt"]}
        known = whole[0] > 0
        known[[position for position, _ in corrupt]] = True
        self.missing = (~known).nonzero().flatten().tolist()
        # The main rank takes over everything before anybody overwrites a part.
        distributed.all_gather_objects(None)
        if distributed.is_main():
            self.held, self.corrupt = whole, sorted(corrupt)
            self.save()
        distributed.all_gather_objects(None)
