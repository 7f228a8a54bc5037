"""A gate as JUnit XML, which GitLab, Jenkins and most others show; and as Markdown for a job's summary page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from . import FAILED, INCONCLUSIVE, PASSED, Gate, Verdict

UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold
MARKS = {PASSED: "✅ passed", FAILED: "❌ failed", INCONCLUSIVE: "⚠️ inconclusive"}
HEAD = ("check", "row", "value [interval]", "n", "result")


def to_junit(gate: Gate) -> bytes:
    """UTF-8 XML: a test case for each check and row.

    Failed checks are <failure>; inconclusive ones <error>, or <failure> where the policy counts them as failed.
    """
    strict = gate.policy.on_inconclusive == "fail"
    found = gate.counts()
    errors = 0 if strict else found[INCONCLUSIVE]
    totals = {
        "tests": str(len(gate.verdicts)),
        "failures": str(len(gate.verdicts) - found[PASSED] - errors),
        "errors": str(errors),
        "skipped": "0",
        "time": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "uapgen gate", **totals})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(str(gate.results.path)), **totals})
    for verdict in gate.verdicts:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {"classname": f"uapgen.gate.{verdict.check.metric}", "name": _clean(verdict.title), "time": "0"},
        )
        if gate.policy.path:
            case.set("file", _clean(str(gate.policy.path)))
        if verdict.state != PASSED:
            kind = "failure" if verdict.state == FAILED or strict else "error"
            attributes = {"message": _clean(f"{verdict.check.bound}: {verdict.reason}"), "type": verdict.state}
            ElementTree.SubElement(case, kind, attributes).text = _clean(_evidence(verdict, gate))
        elif verdict.rate:
            ElementTree.SubElement(case, "system-out").text = _clean(_evidence(verdict, gate))
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + text.encode() + b"\n"


def _evidence(verdict: Verdict, gate: Gate) -> str:
    lines = [
        f"check      {verdict.check.bound} (confidence {verdict.check.confidence:g})",
        f"row        {verdict.row}",
        f"value      {f'{verdict.rate.count} of {verdict.rate.n}' if verdict.rate else 'not measured'}",
        f"reason     {verdict.reason}",
        f"uap        sha256 {verdict.row.sha256}",
    ]
    command = f"reproduce  {gate.results.command}" if gate.results.command else ""
    return "\n".join([*lines, *([command] if command else [])])


def _clean(text: str) -> str:
    return UNPRINTABLE.sub("\ufffd", text)


def to_markdown(gate: Gate) -> str:
    """A heading and one table row for each verdict, as GitHub's job summaries and merge requests show it."""
    found = gate.counts()
    counted = ", ".join(f"{n} {state}" for state, n in found.items() if n)
    lines = [
        f"### Robustness gate: {MARKS[gate.state]}",
        "",
        f"{counted}; results `{_cell(str(gate.results.path))}`",
        "",
        f"| {' | '.join(HEAD)} |",
        f"|{'|'.join(' --- ' for _ in HEAD)}|",
    ]
    for verdict in gate.verdicts:
        value = f"{100 * verdict.rate.count / verdict.rate.n:.1f}%" if verdict.rate and verdict.rate.n else "-"
        if verdict.interval:
            low, high = verdict.interval
            value += f" [{100 * low:.1f}, {100 * high:.1f}]"
        n = str(verdict.rate.n) if verdict.rate else "-"
        name = verdict.check.name or verdict.check.bound
        cells = (name, str(verdict.row), value, n, f"{MARKS[verdict.state]}: {verdict.reason}")
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return _clean(text).replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
