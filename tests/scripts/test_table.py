"""scripts/table.py, which makes README's tables from results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from scripts.table import main


def _row(method: str, victim: str, rates: list[float], transfer: float | None) -> dict[str, Any]:
    common = {"method": method, "victim": victim, "crafted_on": "a"}
    return {**common, "rates": rates, "transfer": {"mean": transfer}}


def test_a_line_a_victim_with_seeds_and_transfer(tmp_path: Path) -> None:
    rate = {"rate": 0.5}
    victims = {
        "a": {"weights": "embedded", "clean_accuracy": None, "floor": rate},
        "b": {"weights": "file", "weights_source": "b.safetensors", "clean_accuracy": rate, "floor": rate},
    }
    rows = [_row("cbgan", "a", [0.9, 0.94], 0.4), _row("cbgan", "b", [0.4], None), _row("sga", "a", [0.7], None)]
    result = {"crafted_on": ["a", "b"], "victims": victims, "rows": rows, "budget": 2000}
    file = tmp_path / "results.json"
    file.write_text(json.dumps(result))
    done = CliRunner().invoke(main, ["across", "cbgan,sga,uap", str(file)])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.output.splitlines()]
    assert lines[0] == ["victim", "image-gradients", "clean acc", "floor", "cbgan", "sga", "uap"]
    assert lines[2:] == [
        ["a", "2000", "-", "50.0", "92.0 ± 2.8 (40.0)", "70.0", "-"],
        ["b.safetensors", "2000", "50.0", "50.0", "-", "-", "-"],
    ]


def test_a_line_for_each_victim_and_defence(tmp_path: Path) -> None:
    def row(method: str, count: int, **more: Any) -> dict[str, Any]:
        common = {"victim": "a", "noise_floor": {"rate": 0.15}, "method": method}
        return {**common, "fooling_rate": {"rate": count / 1000}, **more}

    result = {
        "victims": [{"name": "a", "weights": "file", "weights_source": "a.safetensors"}],
        "rows": [row("cbgan", 919), row("sga", 635)],
        "defences": [row("sga", 325, defence="jpeg75"), row("cbgan", 768, defence="jpeg75")],
    }
    file = tmp_path / "defended.json"
    file.write_text(json.dumps(result))
    done = CliRunner().invoke(main, ["defended", "cbgan,uap,sga", str(file)])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.output.splitlines()]
    assert lines[0] == ["victim", "defence", "cbgan", "uap", "sga", "floor"]
    assert lines[2:] == [
        ["a.safetensors", "none", "91.9", "-", "63.5", "15.0"],
        ["a.safetensors", "jpeg75", "76.8", "-", "32.5", "15.0"],
    ]


def test_a_line_for_each_changed_parameter(tmp_path: Path) -> None:
    def row(method: str, victim: str, rates: list[float]) -> dict[str, Any]:
        return {"method": method, "victim": victim, "crafted_on": "a", "rates": rates, "seeds": [*range(len(rates))]}

    rows = [
        row("cbgan+pool=0", "a", [0.92, 0.96]),  # apart from cbgan by +0.02 and +0.04: 3 ± 1
        row("cbgan", "a", [0.9, 0.92, 0.94]),
        row("cbgan+crops=0+pool=0", "a", [0.8]),
        row("cbgan+pool=0", "b", [0.1]),
        row("sga", "a", [0.7]),
    ]
    about = {"weights": "file", "weights_source": "a.safetensors"}
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"crafted_on": ["a"], "victims": {"a": about}, "rows": rows}))
    done = CliRunner().invoke(main, ["ladder", "cbgan", str(file)])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.output.splitlines()]
    assert [lines[0], *lines[2:]] == [
        ["change", "a.safetensors"],
        ["`cbgan`", "92.0 ± 2.0"],
        ["`crops=0+pool=0`", "80.0 (-10.0)"],
        ["`pool=0`", "94.0 ± 2.8 (+3.0 ± 1.0)"],
    ]
    for words in (["cbgan", "--without", "pool"], ["cbgan+pool=0"]):
        done = CliRunner().invoke(main, ["ladder", *words, str(file)])
        heads = [line.strip("|").split("|")[0].strip() for line in done.output.splitlines()[2:]]
        assert heads == (["`cbgan`"] if "--without" in words else ["`cbgan+pool=0`", "`crops=0`"])
    done = CliRunner().invoke(main, ["ladder", "psp-uap", str(file)])
    assert done.exit_code == 2
    assert "no row of psp-uap on a" in done.output


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    for content in ("{}", "[]"):
        file.write_text(content)
        for words in (["across", "cbgan"], ["evaluations"], ["defended", "cbgan"], ["ladder", "cbgan"]):
            done = CliRunner().invoke(main, [*words, str(file)])
            assert done.exit_code == 2
            assert f"{file} is no result" in done.output
