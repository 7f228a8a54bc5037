"""uapgen doctor: findings, exit codes, a JSON form, and no hanging without a network."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from uapgen.cli import doctor
from uapgen.cli.doctor import command


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_json_form(caches: Path) -> None:
    result = CliRunner().invoke(command, ["--json", "--offline"])
    found = json.loads(result.stdout)
    assert found["schema"] == "uapgen.cli.doctor/1"
    states = {(entry["group"], entry["name"]): entry for entry in found["findings"]}
    assert {group for group, _ in states} == {"packages", "devices", "caches", "victims", "network"}
    assert states["packages", "torch"]["text"].startswith("2.")
    assert states["devices", "cpu"]["details"]["cores"] >= 1
    assert isinstance(states["devices", "cpu"]["details"]["bf16"], bool)
    assert states["caches", "uapgen"]["details"]["path"] == str(caches / "cache")
    assert "switched off" in states["network", "model hub"]["text"]
    broken = any(entry["state"] == "problem" for entry in found["findings"])
    assert result.exit_code == (3 if broken else 0)
    assert found["ok"] is not broken
    assert list(caches.iterdir()) == []  # nothing is left behind


def test_text_form_has_a_line_for_each_finding() -> None:
    result = CliRunner().invoke(command, ["--offline"])
    assert len(result.stdout.splitlines()) == len(doctor.examine(offline=True)) + 5  # and five groups
    assert "python" in result.stdout


@pytest.mark.parametrize(
    ("held", "least", "older"),
    [("2.15.0+cu130", "2.6", False), ("2.5.1", "2.6", True), ("2.6.0", "2.6", False), ("3.0rc1", "2.6", False)],
)
def test_versions_are_compared_as_numbers(held: str, least: str, older: bool) -> None:
    assert (doctor.numbers(held) < doctor.numbers(least)) is older


def test_missing_and_old_packages_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda: ["torch>=99", "no-such-package>=1", "click"])
    found = {finding.name: finding for finding in doctor.packages()}
    assert found["torch"].state == doctor.PROBLEM
    assert "older than 99" in found["torch"].text
    assert found["no-such-package"].remedy == "pip install 'no-such-package>=1'"
    assert found["click"].state == doctor.OK
    assert CliRunner().invoke(command, ["--offline"]).exit_code == 3


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = doctor.writable("hub", tmp_path / "file" / "cache", "HF_HOME")
    assert found.state == doctor.WARNING
    assert "HF_HOME" in found.remedy


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if torch did not import
    found = [finding for finding in doctor.examine(offline=True) if finding.group == "devices"]
    assert [finding.state for finding in found] == [doctor.PROBLEM]


def test_a_silent_network_costs_no_more_than_its_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    def slow(*args: object, **kwargs: object) -> None:
        time.sleep(5)
        raise OSError("no answer")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", slow)
    started = time.monotonic()
    (found,) = doctor.network(timeout=0.2)
    assert time.monotonic() - started < 3
    assert found.state == doctor.WARNING
    assert doctor.TIMEOUT == 2.0
