"""`uapgen methods`, and what a shell completes from the same declarations."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tests.conftest import ROOT
from uapgen.attacks import methods
from uapgen.cli import COMPLETE, cli


def show(*words: str) -> str:
    done = CliRunner().invoke(cli, ["methods", "show", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", list(methods()))
def test_show_lists_every_parameter_with_range_and_default(name: str) -> None:
    known = methods()[name].parameters()
    rows = show(name).partition("parameters (--set KEY=VALUE):")[2].splitlines()[2:]
    assert [row.split()[0] for row in rows] == list(known)
    for row, parameter in zip(rows, known.values(), strict=True):
        assert str(parameter) in row
        assert row.endswith(parameter.text)
    found = json.loads(show(name, "--json"))
    assert found["name"] == name
    assert found["parameters"] == [parameter.to_json() for parameter in known.values()]


def completed(args: list[str], incomplete: str) -> list[str]:
    found = ShellComplete(cli, {}, "uapgen", COMPLETE).get_completions(args, incomplete)
    return [item.value for item in found]


def test_settings_are_completed_for_the_method_that_was_chosen() -> None:
    assert completed(["craft", "--method", "sga", "--set"], "m") == ["minibatch=", "min_steps="]
    assert completed(["craft", "--set"], "gan_w") == ["gan_width=", "gan_weight="]
    assert completed(["craft", "--method", "sga", "--set"], "loss=") == ["loss=ce", "loss=logit"]
    assert completed(["craft", "--set"], "gan=t") == ["gan=true"]
    assert completed(["craft", "--method", "sga", "--set"], "batch=") == []
    assert completed(["craft", "--method", "sgaa", "--set"], "") == []
    assert completed(["craft", "--method"], "sg") == ["sga", "sgd-uap"]


def test_a_shell_is_told_the_settings() -> None:
    words = "uapgen craft --method sga --set pass"
    given = {"PYTHONPATH": str(ROOT), COMPLETE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "5"}
    done = subprocess.run([sys.executable, "-m", "uapgen"], capture_output=True, text=True, env={**os.environ, **given})
    assert done.stdout.splitlines() == ["plain,passes="], done.stderr
