"""What the commands have in common: options that name labelled data or a plan, and what they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...errors import UsageError

if TYPE_CHECKING:
    from ...longtail import LabelledImages

Plan = TypeVar("Plan")
NAMES = "digits, cifar10, cifar100, svhn, stl10, mnist, fashion-mnist, lsun, an .npz or .txt file, or a folder"


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--data, --data-root, --size, --classes, --download, --imbalance, --imbalance-kind and --n-max."""
    for option in (
        click.option("--n-max", type=click.IntRange(min=1), metavar="N", help="Images of the largest class."),
        click.option("--imbalance-kind", type=click.Choice(["exp", "step"]), default="exp", show_default=True),
        click.option(
            "--imbalance", type=float, metavar="RATIO", help="Keep a long tail: largest class / smallest class."
        ),
        click.option("--download", is_flag=True, help="Fetch a torchvision set that is not at hand."),
        click.option("--classes", type=click.IntRange(min=2), metavar="K", help="Only the first K classes."),
        click.option("--size", type=click.IntRange(min=1), metavar="PIXELS", help="Resize images to a square."),
        click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the set's files lie."),
        click.option("--data", default="digits", show_default=True, metavar="SPEC", help=f"{NAMES}."),
    ):
        command = option(command)
    return command


def training_data(options: dict[str, Any]) -> LabelledImages:
    """The training part that the options name, long-tailed if asked."""
    from ...longtail import long_tailed

    data = _load(options, options["data"], train=True)
    if options["imbalance"] is None:
        if options["n_max"] is not None:
            raise UsageError("--n-max goes with --imbalance; give --imbalance 1 for N images of every class")
        return data
    return long_tailed(data, options["imbalance"], kind=options["imbalance_kind"], n_max=options["n_max"])


def test_data(options: dict[str, Any], test: str | None) -> LabelledImages:
    """The test part: `test` where it names a path, else that of --data."""
    return _load(options, test or options["data"], train=test is not None)


def _load(options: dict[str, Any], spec: str, train: bool) -> LabelledImages:
    from ...longtail import load_data

    return load_data(
        spec,
        root=options["data_root"],
        train=train,
        size=options["size"],
        num_classes=options["classes"],
        download=options["download"],
    )


def recipe_settings(pairs: dict[str, str]) -> dict[str, Any]:
    """Values of --set as TOML has them (numbers, true, lists), else as they stand."""
    import tomllib

    found: dict[str, Any] = {}
    for key, text in pairs.items():
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = text
    return found


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """[PLAN.toml], --preset, --show, --data-root, --jobs, --device, --threads and -o."""
    for option in (
        click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), metavar="RUN", help="All files."),
        click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads, of all jobs together."),
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N"),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Processes that work at a time.  [default: one a CPU core; one on a GPU]",
        ),
        click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the set's files lie."),
        click.option("--show", is_flag=True, help="Print the plan's TOML and stop; a start for your own."),
        click.option("--preset", metavar="NAME", help="A plan of the package; an unknown NAME lists them."),
        click.argument("plan", required=False, type=click.Path(path_type=Path), metavar="[PLAN.toml]"),
    ):
        command = option(command)
    return command


def chosen_plan(kind: type[Plan], options: dict[str, Any]) -> Plan | None:
    """The plan that the options name, checked; None after `--show`, which prints it.

    Raises UsageError for neither or both of PLAN.toml and --preset, and where -o is missing.
    """
    from ...experiments import find, load

    given: str | Path | None = options["preset"] or options["plan"]
    if given is None or (options["preset"] and options["plan"]):
        raise UsageError("give a PLAN.toml or --preset NAME, one of them")
    file = find(kind, given)
    plan = load(kind, file)
    if options["show"]:
        click.echo(file.read_text(), nl=False)
        return None
    if options["out"] is None:
        raise UsageError("-o RUN is missing: where shall the table and all else go?")
    return plan


def chosen_seeds(plan: Plan, text: str | None) -> Plan:
    """The plan with the seeds of `--seeds`, if it was given."""
    import dataclasses

    from ...compare.plan import parse_seeds

    return dataclasses.replace(plan, seeds=tuple(parse_seeds(text))) if text else plan  # type: ignore[type-var]


def chosen_jobs(options: dict[str, Any]) -> int:
    """--jobs, or its default on the device."""
    from ...experiments.jobs import default_jobs
    from ...runtime import resolve_device

    return options["jobs"] or default_jobs(resolve_device(options["device"]))
