"""Independent work in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

from ..runtime import start_process

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_jobs(device: torch.device) -> int:
    """One a CPU core (as far as torch may use them); one on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def in_processes(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: int,
    prepare: Callable[..., None] | None = None,
    given: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """`work(task)` of each task as it is done, `jobs` at a time, each process with its share of the CPU threads.

    prepare: called as `prepare(*given)`, once in every process. With one job, or one task, all of this happens here, in
    order. Functions, tasks and results must be picklable. When work fails, what has not begun is not begun.
    """
    jobs = min(jobs, len(tasks))
    if jobs < 2:
        if prepare and tasks:
            prepare(*given)
        yield from map(work, tasks)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's thread pools, locked
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, spawn, _start, (threads, prepare, given)) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(threads: int, prepare: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    start_process(threads)
    if prepare:
        prepare(*given)
