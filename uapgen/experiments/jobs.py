"""Independent work in several processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from ..errors import UapgenError
from ..runtime import start_process

Task = TypeVar("Task")
Send = Callable[[Any], None]


def default_jobs(device: torch.device) -> int:
    """One a CPU core (as far as torch may use them); one on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


class PerProcess:
    """A dataclass that goes to another process as its fields alone: what its cached properties hold is made there."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def in_processes(
    work: Callable[[Task, Send], None], tasks: Sequence[Task], keep: Send, jobs: int = 1
) -> list[tuple[Task, int]]:
    """Calls `work(task, send)` for every task, `jobs` at a time, each process with its share of the CPU threads.

    What is sent arrives at `keep`, in this process and at once. `work` is pickled once for each process, so that what
    it caches serves all tasks there; it, tasks and what is sent must be picklable. With one job, or one task, all
    happens here, in order.
    An exception of `work` ends everything and is raised here. A process that dies costs its task alone: returns these
    tasks, with the exit codes of their processes (negative: the signal).
    """
    jobs = min(jobs, len(tasks))
    if jobs < 2:
        for task in tasks:
            work(task, keep)
        return []
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's thread pools, locked
    threads = max(1, torch.get_num_threads() // jobs)
    waiting, lost = deque(tasks), []
    at_work: dict[Connection, tuple[Any, Task]] = {}
    try:
        while waiting or at_work:
            while waiting and len(at_work) < jobs:
                here, there = spawn.Pipe()
                process = spawn.Process(target=_serve, args=(work, there, threads), daemon=True)
                process.start()
                there.close()
                at_work[here] = process, waiting.popleft()
                here.send(at_work[here][1])
            for connection in wait(list(at_work)):
                assert isinstance(connection, Connection)
                process, task = at_work[connection]
                try:
                    kind, value = connection.recv()
                except EOFError:
                    del at_work[connection]
                    process.join()
                    lost.append((task, process.exitcode or 0))
                    continue
                if kind == "sent":
                    keep(value)
                elif kind == "raised":
                    raise value
                elif waiting:
                    at_work[connection] = process, waiting.popleft()
                    connection.send(at_work[connection][1])
                else:
                    del at_work[connection]
                    connection.close()
                    process.join()
    finally:
        for process, _ in at_work.values():
            process.terminate()
            process.join()
    return lost


def _serve(work: Callable[[Any, Send], None], connection: Connection, threads: int) -> None:
    """Of a worker process: one task after the other, until nobody listens."""
    start_process(threads)
    try:
        while True:
            work(connection.recv(), lambda value: connection.send(("sent", value)))
            connection.send(("done", None))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):  # the other end is gone, or says for itself what happened
        return
    except Exception as error:
        connection.send(("raised", _picklable(error)))


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an exception's own constructor says
        return UapgenError(f"{type(error).__name__}: {error}")
    return error
