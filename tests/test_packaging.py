"""The wheel owns one top-level name and carries everything."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

ROOT = ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the tree, so that no build folder is left in it."""
    import shutil

    copy = tmp_path_factory.mktemp("tree") / "uapgen"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.run", "results", "*.egg-info", "__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("top_level.txt"))
    assert wheel.read(info).decode().split() == ["uapgen"]
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"uapgen"}


def test_every_module_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    for folder, inside in (("uapgen", "uapgen"), ("attacks", "uapgen/attacks"), ("victims", "uapgen/victims")):
        for file in (ROOT / folder).rglob("*.py"):
            assert f"{inside}/{file.relative_to(ROOT / folder).as_posix()}" in held
    for file in (ROOT / "uapgen").rglob("presets/*.toml"):
        assert file.relative_to(ROOT).as_posix() in held
    assert "uapgen/py.typed" in held
    assert {f"uapgen/report/templates/{name}" for name in ("page.html", "page.md", "style.css")} <= held


def test_nothing_below_imports_anything_above() -> None:
    """cli -> evaluation, attacks -> gan, generator, proxies -> victims, perturbation -> runtime, errors."""
    above = {
        "victims": ("attacks", "proxies", "gan", "evaluation", "cli", "generator"),
        "uapgen/proxies": ("attacks", "gan", "evaluation", "cli", "generator"),
        "uapgen/gan": ("attacks", "evaluation", "cli", "generator"),
        "attacks": ("evaluation", "cli"),
        "uapgen/evaluation": ("attacks", "gan", "cli", "compare"),
        "uapgen/compare": ("cli",),
    }
    for folder, forbidden in above.items():
        for file in (ROOT / folder).glob("*.py"):
            for line in file.read_text().splitlines():
                if line.lstrip().startswith("from .."):
                    assert line.split()[1].strip(".").split(".")[0] not in forbidden, f"{file.name}: {line.strip()}"
