"""What the commands that run a plan have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ...errors import UsageError

Plan = TypeVar("Plan")


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
    from ...experiments.plan import find, load

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
