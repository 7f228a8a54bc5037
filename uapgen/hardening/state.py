"""The state of a hardening run on disk: weights, optimiser, delta."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UapgenError
from ..runfolder import RunFolder, load_optimizer_tensors, optimizer_tensors
from ..victims import Victim

STATE = "training"


def save(run: RunFolder, student: Victim, optimizer: torch.optim.Optimizer, delta: Tensor, done: int) -> None:
    """Raises UapgenError, and keeps the former state, when a weight or delta is not finite."""
    tensors = {f"net.{name}": tensor for name, tensor in student.module.state_dict().items()}
    broken = next((name for name, t in {**tensors, "delta": delta}.items() if not bool(t.isfinite().all())), None)
    if broken:
        raise diverged(run, f"{broken.removeprefix('net.')} is not finite after step {done}")
    run.save(STATE, {**tensors, "delta": delta, **optimizer_tensors(optimizer, "sgd")}, {"step": done})


def diverged(run: RunFolder, what: str) -> UapgenError:
    """The error to raise; the log is cut back to the last save."""
    held = run.load(STATE)
    step = held[1]["step"] if held else 0
    ends = f"--steps {step} ends there; " if step else ""
    return UapgenError(
        f"{what}; the last good state, of step {step}, is kept in {run.path}: {ends}start again with --restart and a "
        "lower --lr"
    )


def load(run: RunFolder, student: Victim, optimizer: torch.optim.Optimizer) -> tuple[Tensor, int]:
    """Restores the last save: delta and how many steps were done. A new run starts at delta = 0 and saves that."""
    held = run.load(STATE)
    if held is None:
        delta = torch.zeros(1, *student.input_size, device=student.device)
        save(run, student, optimizer, delta, 0)
        return delta, 0
    tensors, meta = held
    try:
        student.module.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        load_optimizer_tensors(optimizer, "sgd", tensors)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UapgenError(f"{run.path} holds another network; give --restart, or another -o") from error
    return tensors["delta"].to(student.device), int(meta["step"])
