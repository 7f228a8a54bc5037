"""`craft` runs any method and returns a Perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...distributed import from_main, world
from ...errors import UapgenError
from ...perturbation import Perturbation
from ...perturbation.ball import project
from ...proxies import ProxySource, combined_class
from ...runfolder import RunFolder
from ...victims import Victim
from .plan import EPS, CraftPlan, check_craft
from .run import Callback, Crafting, Snapshots, behind


def craft(
    victim: Victim,
    *,
    method: str = "cbgan",
    source: ProxySource | None = None,
    eps: float = EPS,
    norm: str = "linf",
    seed: int = 0,
    budget: str | int = "quick",
    folder: str | Path | None = None,
    restart: bool = False,
    marks: Sequence[int] = (),
    callback: Callback | None = None,
    **options: Any,
) -> Perturbation:
    """Crafts one universal perturbation against `victim`.

    `eps` bounds the pattern in [0,1] pixel units (10/255 is customary), in `norm` linf or l2. `source` gives the
    proxy images; None means the method's own, which for data-free methods is no image at all. `budget` is quick,
    standard, full or a number of image-gradients. `options` are the method's own parameters (see
    `find_method(name).parameters()`), and what `check_craft` takes beside them: `target`, `tile`, `stop_on`, `through`.

    With a `folder` the run saves its state there and the same call goes on after an interruption, ending in the same
    bytes; `restart` discards what is there. `marks` are image-gradients at which a copy of the pattern is kept in
    `folder`/marks. `callback(stage, spent, budget, figures)` hears of every iteration: its stage's name, the
    image-gradients that the run has spent, its budget, and the iteration's numbers.
    Under torchrun (`distributed.init` was called) every process calls this with the same arguments and gets the same
    perturbation: each takes its rows of every batch, where the method `shares`, and does all of the work where not.

    Raises UsageError for a bad argument, before any work, UapgenError when the run fails.
    """
    plan = check_craft(victim, method=method, source=source, eps=eps, norm=norm, seed=seed, budget=budget, **options)
    return carry_out(plan, folder=folder, restart=restart, marks=marks, callback=callback)


def carry_out(
    plan: CraftPlan,
    *,
    folder: str | Path | None = None,
    restart: bool = False,
    marks: Sequence[int] = (),
    callback: Callback | None = None,
) -> Perturbation:
    """Crafts what `plan` says; the other arguments are those of `craft`. Raises UapgenError when the run fails."""
    asked = plan.describe()
    run_folder = from_main(lambda: RunFolder(folder, asked, restart=restart)) if folder else None
    worker = plan.victim.sharing() if plan.method.shares and world() > 1 else plan.victim
    run = Crafting(
        worker,
        plan.source,
        plan.eps,
        plan.seed,
        plan.budget,
        plan.norm,
        plan.target,
        plan.tile,
        plan.stop_on,
        run_folder,
        _Heard(callback) if callback else None,
    )
    if plan.through:
        run.victim = behind(run.victim, plan.through, run.defence_rng)
    run.snapshots = Snapshots(run_folder.path / "marks", marks) if run_folder else None
    delta = _pattern(plan, run)
    sources = run.record.sources + ([plan.stop_on] if plan.stop_on else [])
    told = {"target": plan.target is not None, "tile": plan.tile > 1, "through": bool(plan.through)}
    return Perturbation.create(
        delta,
        eps=plan.eps,
        norm=plan.norm,
        method={
            "name": plan.method.name,
            "paper": plan.method.paper,
            "params": {**plan.params, **{key: asked[key] for key, there in told.items() if there}},
            "budget": plan.budget,
            "stopped": run.stopped,
            **({"effective": run.record.effective(run.cost.layers)} if run.record.complete else {}),
            **({"notes": run.notes} if run.notes else {}),
        },
        data={"class": combined_class([*run.record.drawn, *sources]), "sources": [s.describe() for s in sources]},
        victim=asked["victim"],
        seed=plan.seed,
        cost=run.cost.as_dict(),
        environment={"device": plan.victim.device.type, "precision": plan.victim.precision, **_processes(run)},
    )


class _Heard:
    """The user's callback; what it raises is the user's own, and `by(error)` knows it again."""

    def __init__(self, function: Callback) -> None:
        self.function = function
        self._raised: Exception | None = None

    def __call__(self, stage: str, done: int, total: int, figures: dict[str, Any]) -> None:
        try:
            self.function(stage, done, total, figures)
        except Exception as error:
            self._raised = error
            raise

    def by(self, error: Exception) -> bool:
        return error is self._raised


def _pattern(plan: CraftPlan, run: Crafting) -> Tensor:
    """delta (C,H,W) on the CPU, within the bound. Raises UapgenError for whatever the method raises."""
    try:
        delta = plan.method.function(run, **plan.method.arguments(plan.params))
        return project(run.tied(delta), plan.eps, plan.norm)[0].cpu()
    except UapgenError:
        raise
    except Exception as error:
        if isinstance(run.callback, _Heard) and run.callback.by(error):
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise UapgenError(f"{plan.method.name} failed with {what} ({plan.changed()})") from error


def _processes(run: Crafting) -> dict[str, int]:
    """How many processes made the pattern, for the card: the order of their sums shows in its last bits."""
    return {"processes": world()} if run.victim.shared else {}
