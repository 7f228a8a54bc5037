"""Victims made harder to fool: universal adversarial training, its result as a weights file, and what it changed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..evaluation import Evaluation, Rate, evaluate
from ..evaluation.results import UNREAD
from ..runfolder import save_state
from ..victims import Victim
from ..victims.load import combine
from .attack import Settings, fresh_delta
from .training import Hardened, as_perturbation, harden

__all__ = ["FILE", "Hardened", "Settings", "harden", "measure", "reload_spec", "render", "save_weights", "to_json"]


FILE, KIND = "hardened.safetensors", "uapgen hardened weights 1"
ENOUGH = 0.8  # agreement with the original below which low fooling rates are no robustness


def save_weights(path: str | Path, hardened: Hardened, original: Victim, settings: Settings) -> None:
    """The state dict under the network's own names; the header has the preprocessing, which `load_victim` reads, and
    where the weights come from.
    """
    preprocessing = asdict(original.preprocessing)
    del preprocessing["origin"]
    header = {
        "kind": KIND,
        "preprocessing": preprocessing,
        "original": original.describe(),
        "training": {**asdict(settings), "images": len(hardened.trained_on), "labelled": hardened.labelled},
        "delta_sha256": hardened.delta.sha256,
    }
    save_state(path, hardened.victim.module.state_dict(), header)


def reload_spec(spec: str, arch: str | None = None) -> str:
    """What `--victim` takes beside `--weights FILE` for the architecture of the victim `spec` (with `arch`).

    Raises UsageError for a victim that is no architecture: repositories, folders of timm, programs, files of
    'uapgen gan classifier'.
    """
    parsed, _ = combine(spec, arch, None)
    if parsed.kind == "embedded":
        return f"timm/tf_{parsed.name}"
    if parsed.kind not in ("timm", "tv", "python"):
        raise UsageError(
            f"victim {spec} takes no other weights, so the result could not be loaded again; "
            "give its architecture as timm/NAME and its file as --weights"
        )
    if parsed.random:
        name, _, options = (arch or spec).partition(":")
        kept = [option for option in options.split(",") if option != "random"]
        return f"{name}:{','.join(kept)}" if kept else name
    return arch or spec


def measure(
    original: Victim, hardened: Hardened, settings: Settings, *, attack_steps: int = 100, workers: int | None = None
) -> dict[str, Any]:
    """Both victims on the held-out images: `before` and `after`, each with `agreement` (share of clean predictions
    that are the original's), `accuracy` (None without labels), `fooling_rate` of the trained delta, `fresh` of one made
    against this very victim on the training images in `attack_steps` steps, `standing`, the share of images that under
    that one still get the original's clean class (both None for 0 steps), and `noise_floor`.

    A fooling rate counts changes of the victim's own clean prediction: a victim that says one class for everything has
    none, and does not stand. All rates as `Rate`s.
    """
    both = []
    for victim in (original, hardened.victim):
        patterns = [hardened.delta]
        if attack_steps:
            fresh = fresh_delta(victim, hardened.trained_on, settings, attack_steps, workers)
            patterns.append(as_perturbation(fresh, victim, hardened.trained_on, settings))
        both.append(evaluate(patterns, victim, hardened.held_out, batch_size=settings.batch, workers=workers))
    before, after = (_rates(both[0], one) for one in both)
    return {"before": before, "after": after, "n": both[0].n, "notes": list(hardened.held_out.notes)}


def _rates(original: Evaluation, one: Evaluation) -> dict[str, Rate | None]:
    first, own = original.predictions.clean, one.predictions.clean
    read = first != UNREAD
    fresh = one.predictions.adv[1] if len(one.rows) > 1 else None
    return {
        "agreement": Rate(int((first == own)[read].sum()), int(read.sum())),
        "accuracy": one.clean_accuracy,
        "fooling_rate": one.rows[0].fooling_rate,
        "fresh": None if fresh is None else one.rows[1].fooling_rate,
        "standing": None if fresh is None else Rate(int((first == fresh)[read].sum()), int(read.sum())),
        "noise_floor": one.noise[0].fooling_rate,
    }


def to_json(measured: dict[str, Any]) -> dict[str, Any]:
    """`measure`'s result as JSON: rates with count, n and interval."""
    rates = {
        when: {name: rate and rate.to_json() for name, rate in measured[when].items()} for when in ("before", "after")
    }
    return {**measured, **rates}


def render(measured: dict[str, Any]) -> str:
    """A table in per cent with 95% intervals."""
    names = {
        "agreement": "agrees with the original, clean",
        "accuracy": "clean accuracy",
        "fooling_rate": "fooling rate of the trained delta",
        "fresh": "fooling rate of a fresh delta",
        "standing": "agrees with the original, under it",
        "noise_floor": "fooling rate of random signs",
    }
    rows = [f"{'on ' + str(measured['n']) + ' held-out images':<36}{'before':<22}after"]
    for key, title in names.items():
        if measured["before"][key] is not None:
            rows.append(f"{title:<36}{measured['before'][key]!s:<22}{measured['after'][key]}")
    agreement = measured["after"]["agreement"].value
    if agreement is not None and agreement < ENOUGH:
        rows.append(
            f"warning: the hardened victim has forgotten much (agreement below {ENOUGH:.0%}), so that its fooling "
            "rates say little; take a lower --lr, more images or a smaller --eps"
        )
    return "\n".join(rows)
