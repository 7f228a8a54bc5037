"""uapgen gate: does a result satisfy a policy?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..evaluation.document import EvaluationDocument
    from ..gate import Gate

_FILE = click.Path(path_type=Path)


@click.command("gate")
@click.argument("results", type=_FILE, metavar="RESULTS")
@click.option("--policy", "policy_file", type=_FILE, metavar="FILE.toml", help="Checks; see below.")
@click.option("--max-fooling-rate", metavar="SHARE", type=float, help="Short form of a policy with this one check.")
@click.option("--junit", type=_FILE, metavar="FILE", help="JUnit XML: one test case for each check and row.")
@click.option(
    "--summary", type=_FILE, metavar="FILE", help="Markdown table.  [default: $GITHUB_STEP_SUMMARY, where it is set]"
)
@click.pass_context
def command(
    ctx: click.Context,
    results: Path,
    policy_file: Path | None,
    max_fooling_rate: float | None,
    junit: Path | None,
    summary: Path | None,
) -> None:
    """Check RESULTS (of evaluate --json or compare) against a policy; the exit code is the answer.

    0 all checks passed; 1 a check failed; 2 usage, or the policy cannot be read; 3 the results or a baseline cannot
    be read; 4 inconclusive: the interval straddles the limit, or too few images.

    \b
    # robustness.toml
    on_inconclusive = "separate"      # or "fail": then exit 1 in place of 4
    [[check]]
    metric = "fooling_rate"           # its upper 95% Wilson bound must not exceed max
    victim = "timm/*"                 # also method, defence (patterns) and eps_255
    max = 0.40
    min_images = 1000
    [[check]]
    metric = "adversarial_accuracy"
    baseline = "results/main.json"    # relative to the policy
    max_decrease = 0.02

    \b
    uapgen gate result.json --policy robustness.toml --junit gate.xml
    uapgen gate result.json --max-fooling-rate 0.4
    """
    from ..errors import UsageError
    from ..evaluation.stored import load_results
    from ..gate import check_limit, gate
    from ..gate.policy import load_policy

    if (policy_file is None) == (max_fooling_rate is None):
        raise UsageError("give either --policy FILE.toml or --max-fooling-rate SHARE")
    if max_fooling_rate is not None:
        ctx.exit(report(check_limit(load_results(results), max_fooling_rate), junit, summary))
    assert policy_file is not None
    policy = load_policy(policy_file)
    ctx.exit(report(gate(load_results(results), policy), junit, summary))


def report(gate: Gate, junit: Path | None = None, summary: Path | None = None) -> int:
    """Prints the verdicts, writes the files asked for, and returns the exit code."""
    from ..gate import describe
    from ..gate.junit import to_junit, to_markdown

    click.echo(describe(gate.verdicts))
    shared = os.environ.get("GITHUB_STEP_SUMMARY")
    if junit is not None:
        _write(junit, to_junit(gate))
    if summary is not None and str(summary) != shared:
        _write(summary, to_markdown(gate).encode())
    elif shared:
        _append(Path(shared), to_markdown(gate))
    counted = ", ".join(f"{n} {state}" for state, n in gate.counts().items() if n)
    click.echo(f"gate {gate.state}: {counted}", err=True)
    return gate.exit_code


def answer(result: EvaluationDocument, max_fooling_rate: float) -> int:
    """The exit code for results in memory; the verdicts go to stderr, because stdout has the results."""
    from ..evaluation.stored import stored
    from ..gate import check_limit, describe

    found = check_limit(stored(result), max_fooling_rate)
    click.echo(f"{describe(found.verdicts)}\ngate {found.state}", err=True)
    return found.exit_code


def _write(path: Path, data: bytes) -> None:
    from ..runtime import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _append(path: Path, text: str) -> None:
    """The runner's summary page belongs to all steps of the job; a page that cannot be written fails no gate."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        click.echo(f"warning: {path} cannot be written ({error.strerror}); the summary is left out", err=True)
