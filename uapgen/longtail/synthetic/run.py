"""Runs a plan: generators, classifiers, what the metrics say of each source; a line of JSON for each result.

A folder for each seed (`rows.jsonl`, `gans/`, `classifiers/`), so that seeds can run beside each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import UapgenError
from ...experiments.jobs import in_processes
from ...perturbation import Perturbation
from ...runfolder import RunFolder
from .plan import Plan
from .seed import read_rows, run_seed

Say = Callable[[str], None]


def run_plan(
    plan: Plan,
    out: str | Path,
    *,
    uaps: Sequence[Perturbation] = (),
    device: str = "auto",
    precision: str = "fp32",
    jobs: int = 1,
    restart: bool = False,
    say: Say = print,
) -> list[dict[str, Any]]:
    """All rows of the plan, from `out` or computed now; the same call again continues, and seeds and UAPs can be added.

    precision: of training; filters, features and tests of the real classifier are fp32. jobs: seeds at a time, each in
    a process with its share of the CPU. restart: discards what `out` holds. say: told of every result; a function that
    can be pickled.
    Raises UsageError where `out` holds another plan, and UapgenError, after all else is done, when cells failed.
    """
    RunFolder(out, {**_options(plan), "precision": precision}, restart=restart)
    work = partial(_seed, plan, Path(out), uaps=tuple(uaps), device=device, precision=precision, say=say)
    failed = [text for found in in_processes(work, plan.seeds, jobs) for text in found]
    if failed:
        raise UapgenError(f"{len(failed)} cells failed, the first is {failed[0]}; the same command tries them again")
    return collect(plan, out)


def _seed(plan: Plan, out: Path, seed: int, **given: Any) -> list[str]:
    return run_seed(plan, seed, seed_folder(out, seed), **given)


def _options(plan: Plan) -> dict[str, Any]:
    """What decides the numbers, flat, as `gan.width`; seeds may be added, and a root is where and not what."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(plan).items():
        if name not in ("seeds", "root"):
            flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def collect(plan: Plan, out: str | Path) -> list[dict[str, Any]]:
    """The rows that `out` holds of the plan's seeds."""
    return [row for seed in plan.seeds for row in read_rows(seed_folder(out, seed))]


def seed_folder(out: str | Path, seed: int) -> Path:
    return Path(out) / f"seed{seed}"
