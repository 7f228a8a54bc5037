"""--config, --dry-run of evaluate, and shell completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.cli.test_evaluate import run, workplace
from tests.conftest import ROOT
from uapgen.cli import cli
from uapgen.cli.craft import command as craft
from uapgen.cli.evaluate import command as evaluate
from uapgen.cli.options import config_option
from uapgen.errors import UapgenError, UsageError

__all__ = ["workplace"]


@click.command(context_settings={"default_map": {"kind": "plain"}})
@config_option("evaluate")
@click.argument("files", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1))
@click.option("--batch-size", type=int, default=32)
@click.option("--kind", default="none")
@click.option("--eps", default="10")
@click.option("--victim", "victims", multiple=True, required=True)
@click.option("--offline", is_flag=True)
@click.option("--set", "settings", multiple=True)
def probe(**options: Any) -> None:
    click.echo(json.dumps(options))


def ask(text: str, *words: str) -> Any:
    Path("c.toml").write_text(text, encoding="utf-8")
    done = CliRunner().invoke(probe, ["--config", "c.toml", *words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout) if done.exit_code == 0 else done.output


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_table_gives_what_the_command_line_does_not() -> None:
    text = """
    [craft]
    anything = true
    [evaluate]
    files = ["größe.safetensors", "b"]
    limit = 5
    batch_size = 8
    eps = 10
    victim = ["x", "y"]
    offline = true
    [evaluate.set]
    lr = 0.1
    normalise = false
    layers = ["a", 2]
    """
    assert ask(text) == {
        "files": ["größe.safetensors", "b"],
        "limit": 5,
        "batch_size": 8,
        "kind": "plain",
        "eps": "10",
        "victims": ["x", "y"],
        "offline": True,
        "settings": ["lr=0.1", "normalise=false", "layers=[a, 2]"],
    }
    over = ask(text, "c", "--limit", "6", "--victim", "z", "--set", "lr=1")
    assert (over["files"], over["limit"], over["victims"], over["settings"]) == (["c"], 6, ["z"], ["lr=1"])
    assert over["batch_size"] == 8
    assert ask("[evaluate]\nfiles = 'a'\nvictim = 'only'\nkind = 'mine'")["victims"] == ["only"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[evaluate]\nbatch-sise = 3", r"c\.toml \[evaluate\]: batch-sise is unknown; did you mean 'batch-size'"),
        ("[evaluate]\nconfig = 'd.toml'", "config is unknown"),
        ("[evalute]\nlimit = 3", "evalute is no verb; did you mean 'evaluate'"),
        ("limit = 3", "limit is no verb"),
        ("[craft]\nlimit = 3", r"has no table \[evaluate\]"),
        ("evaluate = 3", r"has no table \[evaluate\]"),
        ("[evaluate]\nlimit = [1, 2]", r"limit = \[1, 2\]; expected text or a number$"),
        ("[evaluate]\nlimit = true", "limit = True; expected text or a number"),
        ("[evaluate]\noffline = 'yes'", "offline = 'yes'; expected true or false"),
        ("[evaluate]\nvictim = [1979-05-27]", "expected text or a number, or a list of them"),
        ("[evaluate]\nlimit = ", "cannot be read"),
    ],
)
def test_tables_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(text, "file", "--victim", "v")


def test_values_are_checked_as_on_the_command_line() -> None:
    assert "0 is not in the range" in ask("[evaluate]\nlimit = 0", "file", "--victim", "v")
    assert "Missing option '--victim'" in ask("[evaluate]\nlimit = 1", "file")


def test_evaluate_takes_its_whole_command_from_a_file(workplace: Path) -> None:
    Path("c.toml").write_text(
        "[evaluate]\nuaps = ['up.safetensors']\nvictim = 'brightness:build'\ndata = 'data'\nworkers = 0\njson = '-'\n"
    )
    done = CliRunner().invoke(evaluate, ["--config", "c.toml", "--limit", "149"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"][0]["n"] == 149
    for verb in (craft, evaluate):
        missing = CliRunner().invoke(verb, ["--config", "none.toml"])
        assert isinstance(missing.exception, UapgenError)
        assert "none.toml cannot be read" in str(missing.exception)


def test_a_dry_run_of_evaluate_says_what_it_would_do(workplace: Path) -> None:
    before = sorted(workplace.rglob("*"))
    words = ["--defence", "jpeg75", "--limit", "100", "--json", "r.json", "--run", "runs", "--max-fooling-rate", "0"]
    done = run("--dry-run", "--victim", "brightness:darker", *words)
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert [victim["forward_passes"] for victim in plan["victims"]] == [600, 600]  # clean, pattern, floor; both twice
    assert plan["victims"][0]["images"]["images"] == 100
    assert plan["victims"][0]["seconds"] >= 0
    assert plan["defences"] == ["jpeg75"]
    assert [path for path in sorted(workplace.rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0, done.output
    assert f"_UAPGEN_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [("uapgen eva", "evaluate"), ("uapgen evaluate --per", "--per-image"), ("uapgen gan cla", "classifier")],
)
def test_a_shell_that_asks_is_answered(words: str, expected: str) -> None:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_UAPGEN_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([sys.executable, "-m", "uapgen"], capture_output=True, text=True, env=env)
    assert f"plain,{expected}" in done.stdout.splitlines(), done.stderr
