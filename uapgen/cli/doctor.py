"""uapgen doctor: what this machine has, and what would get in the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..doctor import Finding

MARKS = {"ok": " ", "warning": "!", "problem": "x"}


@click.command("doctor")
@click.option("--offline", is_flag=True, help="Leave the network alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, offline: bool, as_json: bool) -> None:
    """Say what this machine has: versions, devices and bf16, caches, embedded victims, and whether the hub answers.

    Nothing is changed, and the network gets two seconds. Exit code 3 when something is broken (a package missing or
    too old, torch that does not import, a GPU that fails); warnings (!) leave it at 0.

    \b
    uapgen doctor
    uapgen doctor --json --offline
    """
    from ..doctor import PROBLEM, examine

    found = examine(offline=offline)
    problems = [finding for finding in found if finding.state == PROBLEM]
    if as_json:
        document = {"schema": "uapgen.doctor/1", "ok": not problems, "findings": [f.to_json() for f in found]}
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo("\n".join(_lines(found)))
    ctx.exit(3 if problems else 0)


def _lines(found: list[Finding]) -> list[str]:
    width = max(len(finding.name) for finding in found)
    lines, group = [], ""
    for finding in found:
        if finding.group != group:
            group = finding.group
            lines.append(group)
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        lines.append(f"{MARKS[finding.state]} {finding.name:<{width}}  {finding.text}{remedy}")
    return lines
