"""uapgen harden: universal adversarial training of a victim"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UapgenError, UsageError
from .options import device_options, parse_eps, say, victim_options
from .progress import Progress

if TYPE_CHECKING:
    from ..hardening import Hardened
    from ..victims import Victim


@click.command("harden")
@victim_options
@click.option("--data", required=True, metavar="DIR|TAR|foolbox", help="Images to train on and to measure with.")
@click.option("--labels", type=click.Path(path_type=Path), metavar="CSV", help="Header file,label, as for 'evaluate'.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take N images, evenly spread over DIR.")
@click.option("--eps", default="10", show_default=True, metavar="LEVELS", help="Bound of delta in levels of 255.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Each one of delta and one of the weights.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Of the weights (SGD).")
@click.option("--momentum", type=float, default=0.9, show_default=True)
@click.option("--weight-decay", type=float, default=0.0, show_default=True)
@click.option("--delta-step", metavar="LEVELS", help="Signed step of delta in levels of 255.  [default: eps]")
@click.option("--update-batch-norm", is_flag=True, help="Let batch norm take the statistics of perturbed batches.")
@click.option("--held-out", type=float, default=0.2, show_default=True, help="Share of the images that only measures.")
@click.option(
    "--attack-steps",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Of the fresh deltas that measure; 0: none.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--save-every", type=click.IntRange(min=1), default=50, show_default=True, metavar="STEPS")
@click.option("--workers", type=click.IntRange(min=0), metavar="N", help="Processes that decode images.")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="RUNDIR", help="Folder of the run."
)
@click.option("--restart", is_flag=True, help="Discard the run in RUNDIR instead of continuing it.")
@device_options
def command(**options: Any) -> None:
    """Train a copy of a victim so that universal perturbations fool it less.

    Universal adversarial training (Shafahi et al., AAAI 2020): one delta, shared by all images, climbs the loss while
    the weights descend it. Labels are those of the folders, of DIR/labels.csv or of --labels; where there is none, the
    victim's own clean prediction is taken. RUNDIR then holds

    \b
    hardened.safetensors  the weights, for --victim ... --weights (the last line of the output)
    delta.safetensors     the last delta, a perturbation file
    result.json           agreement and fooling rates before and after, on held-out images
    stats.jsonl           the losses of each step

    An interrupted run goes on when the same command is run again; with more --steps a finished one goes on. A loss that
    is not finite stops the run with exit code 3 and keeps the last good state.

    The delta of the run was made against weights that moved, and says little of weights that rest. So a fresh one is
    made against each of both victims, by the same signed steps on the training images. For stronger attacks run
    'uapgen craft' and 'uapgen evaluate' on the hardened victim.

    \b
    uapgen harden --victim embedded/efficientnet_lite0 --data imagenet/train --limit 20000 --eps 10 --steps 2000 -o hard
    uapgen craft --victim timm/tf_efficientnet_lite0 --weights hard/hardened.safetensors -o fresh.safetensors
    uapgen harden --victim mymodels:resnet --data photos --labels photos.csv --lr 0.0003 -o hard
    """
    _harden(_arguments(**options))


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The options of `uapgen harden`, read; `figures` are those of `hardening.Settings`."""

    victim: str
    weights: Path | None
    arch: str | None
    data: str
    labels: Path | None
    limit: int | None
    save_every: int
    attack_steps: int
    workers: int | None
    out: Path
    restart: bool
    device: str
    precision: str
    offline: bool
    threads: int | None
    figures: dict[str, Any]

    @property
    def where(self) -> dict[str, Any]:
        """How victims are loaded."""
        return {"device": self.device, "precision": self.precision, "offline": self.offline}


def _arguments(*, eps: str, delta_step: str | None, batch_size: int, **options: Any) -> Arguments:
    own = {field.name for field in fields(Arguments)}
    figures = {"eps": parse_eps(eps), "delta_step": None if delta_step is None else parse_eps(delta_step)}
    figures |= {"batch": batch_size, **{key: value for key, value in options.items() if key not in own}}
    return Arguments(figures=figures, **{key: value for key, value in options.items() if key in own})


def _harden(args: Arguments) -> None:
    from .. import distributed

    if distributed.started() > 1:
        raise UsageError("harden runs in one process; start it without torchrun")
    from ..hardening import FILE, Settings, harden, measure, reload_spec, render, save_weights, to_json
    from ..images.listing import find_images
    from ..images.sets import open_images
    from ..runtime import atomic_write, ensure_writable, start_process
    from ..victims import announce, load_victim

    settings = Settings(**args.figures)
    again = reload_spec(args.victim, args.arch)
    find_images(args.data)
    start_process(args.threads)
    ensure_writable(args.out / "options.json")
    original = load_victim(args.victim, weights=args.weights, arch=args.arch, **args.where)
    for text in (announce(original), *(f"warning: {warning}" for warning in original.warnings)):
        say(text)
    images = open_images(args.data, original, labels=args.labels, limit=args.limit)
    progress = Progress(unit="step")
    try:
        hardened = harden(
            original,
            images,
            settings,
            folder=args.out,
            restart=args.restart,
            save_every=args.save_every,
            workers=args.workers,
            callback=lambda done, losses: progress("harden", done, settings.steps, losses),
        )
    finally:
        progress.close()
    save_weights(args.out / FILE, hardened, original, settings)
    hardened.delta.save(args.out / "delta.safetensors")
    say("measuring on the held-out images, before and after")
    measured = measure(original, hardened, settings, attack_steps=args.attack_steps, workers=args.workers)
    lines = [_targets(hardened), render(measured), *(f"note: {note}" for note in measured["notes"])]
    with atomic_write(args.out / "result.json") as temporary:
        temporary.write_text(json.dumps({"trained_on": lines[0], **to_json(measured)}, indent=1) + "\n")
    click.echo("\n".join([*lines, _loads_again(again, args.out / FILE, hardened.victim, args.where)]))


def _targets(hardened: Hardened) -> str:
    n, known = len(hardened.trained_on), hardened.labelled
    if not known:
        return f"trained on {n} images; labels: the victim's own clean predictions (self-distillation)"
    rest = f", of the other {n - known} the victim's own clean predictions" if known < n else ""
    return f"trained on {n} images; labels: given for {known}{rest}"


def _loads_again(spec: str, file: Path, trained: Victim, where: dict[str, Any]) -> str:
    """How to load the result, tried; a network built by code of the user's may not take weights."""
    from ..victims import load_victim

    how = f"--victim {spec} --weights {file}"
    try:
        loaded = load_victim(spec, weights=file, check=False, **where)
    except UapgenError as error:
        return f"{file} (not loadable as {how}: {error})"
    if loaded.weights_sha256 != trained.weights_sha256 or loaded.preprocessing != trained.preprocessing:
        raise UapgenError(f"{how} loads another victim than the trained one; load {file} into the network by hand")
    return how
