"""GOLD against its baselines: every row with every seed, a line of results.jsonl each, and none measured twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ...errors import UsageError
from ...runfolder import RunFolder
from ...runtime import resolve_device
from ..sources import load_data
from .active import Strategy
from .bench import Bench, Record
from .examples import Examples, blobs, of_images
from .plan import Data, Plan

PARTS = ("reweighting", "rejection", "active")
STRATEGIES: tuple[Strategy, ...] = ("random", "gold")


def load_examples(data: Data, root: str | Path | None = None) -> tuple[Examples, Examples]:
    """Training and test part. Raises what `load_data` raises."""
    if data.spec == "blobs":
        return blobs(data.points, seed=0), blobs(data.points, seed=1)
    held = load_data(data.spec, root=root, train=not data.test_only, size=data.resize)
    test = (
        load_data(data.test, root=root, size=32) if data.test else load_data(data.spec, root=root, train=False, size=32)
    )
    return of_images(held, window=None if data.resize == 32 else 32), of_images(test)


def run(
    plan: Plan,
    out: str | Path,
    *,
    root: str | Path | None = None,
    seeds: int | None = None,
    parts: tuple[str, ...] = PARTS,
    device: str | torch.device = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> list[Record]:
    """All records of `out`, which may hold a part of this experiment; an interrupted one goes on.

    seeds: 0 to seeds-1, default the plan's. parts: of PARTS; those without a section in the plan are left out.
    Raises UsageError for unknown parts, and when `out` holds another plan or other data.
    """
    if unknown := set(parts) - set(PARTS):
        raise UsageError(f"no part {sorted(unknown)[0]!r}; expected {', '.join(PARTS)}")
    count = plan.seeds if seeds is None else seeds
    if count < 1:
        raise UsageError(f"{count} seeds; expected at least 1")
    real, test = load_examples(plan.data, root)
    about = {"trained_on": real.name, "trained_sha256": real.sha256, "test_sha256": test.sha256}
    fixed = {name: section for name, section in asdict(plan).items() if name != "seeds"}
    place = RunFolder(out, {**fixed, **about}).path
    chosen = resolve_device(device)
    bench = Bench(plan, real.to(chosen), test.to(chosen), place, about, chosen, say)
    for seed in range(count):
        bench.reference(seed)
        if "reweighting" in parts and plan.reweighting:
            bench.reweighting(seed)
        if "rejection" in parts and plan.rejection:
            bench.rejection(seed)
        if "active" in parts and plan.active:
            for strategy in STRATEGIES:
                bench.active(seed, strategy)
    return bench.results.read()
