"""torchrun in a page: nothing to do for one process, integer sums for many."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import UapgenError

Value = TypeVar("Value")


def init(device: torch.device) -> None:
    """Joins the process group when torchrun started us; gloo on a CPU, nccl on GPUs."""
    if "RANK" not in os.environ or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # nccl's object collectives use the current one
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UapgenError(f"torchrun's process group did not form: {str(error).splitlines()[0]}") from error


def started() -> int:
    """How many processes torchrun started, before `init` too; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process may write files and talk. True before `init` only on rank 0."""
    return int(os.environ.get("RANK", 0)) == 0


def all_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks, in place; the tensor itself for one process."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def all_gather_objects(value: object) -> list[Any]:
    """Every rank's value, in rank order."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def from_main(make: Callable[[], Value]) -> Value:
    """What `make()` gives on rank 0, where alone it is called, on every rank; its UapgenError is raised on all.

    For what is read from disk, which other machines need not see, or might see a moment later.
    """
    if world() == 1:
        return make()
    held: list[Any] = [None, None]
    if rank() == 0:
        try:
            held[0] = make()
        except UapgenError as error:
            held[1] = error
    dist.broadcast_object_list(held, src=0)
    if held[1] is not None:
        raise held[1]
    made: Value = held[0]
    return made


def finish() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
