"""A run folder: options.json, stats.jsonl, and one state file from which the same command goes on.

Time is counted in images, never in epochs, and nothing is pickled: states are safetensors with one JSON entry.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .distributed import is_main
from .errors import UapgenError, UsageError
from .lock import LOCK, lock
from .runtime import atomic_write

OPTIONS = "options.json"


class RunFolder:
    """`RunFolder(path, options)` starts a run, or continues the one in `path` if it was started with the same options.

    While the object lives, no other process gets one of that folder. Raises UsageError, naming the first option that
    differs, when `path` holds another run, and UapgenError when another process is at work in it.
    """

    def __init__(self, path: str | Path, options: dict[str, Any], *, restart: bool = False) -> None:
        self.path = Path(path)
        self._lock = lock(self.path) if is_main() else None
        if restart and (self.path / OPTIONS).is_file():
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != LOCK:
                    entry.unlink()
        self._check_options(json.loads(json.dumps(options)))

    def _check_options(self, options: dict[str, Any]) -> None:
        held = read_options(self.path, "give --restart")
        if held is not None:
            if difference := _difference(held, options):
                what, there, now = difference
                advice = "give --restart to discard it, or another -o"
                raise another(self.path, "run", what, repr(there), repr(now), advice)
        elif is_main():
            write_options(self.path, options)

    def log(self, **stats: Any) -> None:
        """Appends one line to stats.jsonl."""
        if is_main():
            with (self.path / "stats.jsonl").open("a") as file:
                file.write(json.dumps(stats) + "\n")

    def save(self, name: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Writes the state `name`; `meta` is JSON. The length of stats.jsonl is kept, so that a resumed log has no
        doubles.
        """
        if not is_main():
            return
        log = self.path / "stats.jsonl"
        meta = {**meta, "_log_bytes": log.stat().st_size if log.exists() else 0}
        save_state(self.path / f"{name}.safetensors", tensors, meta)

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state `name`, or None before the first save; cuts stats.jsonl back to where it was then."""
        file = self.path / f"{name}.safetensors"
        if not file.is_file():
            return None
        tensors, meta = load_state(file)
        log = self.path / "stats.jsonl"
        kept = self._log_bytes()
        if is_main() and log.exists() and log.stat().st_size > kept:
            with log.open("r+b") as stream:
                stream.truncate(kept)
        return tensors, meta

    def _log_bytes(self) -> int:
        """How long stats.jsonl was when the latest of the states was saved: stages that are done load theirs first."""
        return max(
            _open_state(file, with_tensors=False)[1].get("_log_bytes", 0) for file in self.path.glob("*.safetensors")
        )


def read_options(path: Path, advice: str) -> dict[str, Any] | None:
    """What decides the run in `path`; None where there is none yet. Raises UapgenError, with `advice`, for damage."""
    file = path / OPTIONS
    if not file.is_file():
        return None
    try:
        held: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise UapgenError(f"{file} is not JSON ({error}); delete {path} or {advice}") from error
    return held


def write_options(path: Path, options: dict[str, Any], *, in_order: bool = False) -> None:
    """in_order: of keys as they are, because that says something; else sorted."""
    with atomic_write(path / OPTIONS) as temporary:
        temporary.write_text(json.dumps(options, indent=1, sort_keys=not in_order) + "\n")


def another(path: Path, kind: str, what: str, there: str, now: str, advice: str) -> UsageError:
    """What to raise where `path` holds another run: the first difference, and what to do."""
    return UsageError(f"{path} holds another {kind} ({what} = {there} there, {now} now); {advice}")


def _difference(held: dict[str, Any], options: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first option that differs, by its path in nested options, and its two values."""
    for key in sorted({*held, *options}):
        there, now = held.get(key), options.get(key)
        if isinstance(there, dict) and isinstance(now, dict) and (inner := _difference(there, now)):
            return f"{key}.{inner[0]}", *inner[1:]
        if there != now:
            return key, there, now
    return None


def save_state(path: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Tensors and JSON as one safetensors file, byte-stable (a single metadata key), written atomically."""
    held = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(held, temporary, metadata={"uapgen": json.dumps(meta, sort_keys=True, separators=(",", ":"))})


def load_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote. Raises UapgenError for anything else."""
    return _open_state(Path(path), with_tensors=True)


def _open_state(path: Path, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})["uapgen"])
            return {key: file.get_tensor(key) for key in (file.keys() if with_tensors else ())}, meta
    except Exception as error:  # safetensors raises its own untyped errors
        raise UapgenError(f"{path} is not a state file of uapgen ({error}); delete it to start again") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimiser's state as named tensors, `prefix.INDEX.NAME`."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{key}": torch.as_tensor(v) for i, entry in state.items() for key, v in entry.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            index, key = name[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
