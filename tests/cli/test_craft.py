"""`uapgen craft` as its user meets it: errors, interruption, and a SIGKILL at every stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.images.test_decode_tars import pack
from tests.images.test_doors import pictures, write
from uapgen.cli import main
from uapgen.perturbation import Perturbation

VICTIM = """
import torch
from tests.conftest import TINY, tiny_net
from uapgen.victims import Victim

def build():
    torch.manual_seed(0)
    net = tiny_net(width=4).train()
    with torch.no_grad():
        net(torch.rand(64, 3, 32, 32))  # batch-norm statistics of their own
    return Victim(net, name="tiny", preprocessing=TINY, device="cpu")
"""
SMALL = [
    "gan_from=0",
    "gan_width=2",
    "gan_size=32",
    "gan_latent=8",
    "gan_batch=8",
    "batch=8",
    "generator_width=4",
    "pool=32",
]
CRAFT = ["craft", "--victim", "small_victim:build", "--budget", "1200", "--seed", "3", *(f"--set={s}" for s in SMALL)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a victim module in it and a cache of its own."""
    (tmp_path / "small_victim.py").write_text(VICTIM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def run(capsys: pytest.CaptureFixture, *args: str) -> tuple[int, str, str]:
    """The command in this process: exit code, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uapgen", *args])
        with pytest.raises(SystemExit) as exit_info:
            main()
    out, err = capsys.readouterr()
    code = exit_info.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--victim", "resnet5O"], 2, "did you mean"),
        (["--victim", "embedded/efficientnet_lite9"], 2, "efficientnet_lite"),
        (["--eps", "0"], 2, "outside (0, 255]"),
        (["--eps", "-3"], 2, "outside (0, 255]"),
        (["--eps", "300"], 2, "outside (0, 255]"),
        (["--eps", "nan"], 2, "outside (0, 255]"),
        (["--eps", "0.04"], 2, "did you mean 10?"),
        (["--eps", "ten"], 2, "not a number"),
        (["--method", "cbgam"], 2, "did you mean 'cbgan'"),
        (["--method", "sga"], 2, "--train-data DIR"),
        (["--budget", "quik"], 2, "expected quick"),
        (["--set", "btch=3"], 2, "did you mean 'batch'"),
        (["--set", "batch"], 2, "not KEY=VALUE"),
        (["--proxy", "cloud"], 2, "expected one of"),
        (["--method", "noise", "--proxy-filter", "gold"], 2, "noise has none (has: cbgan)"),
        (["--proxy-filter", "gold", "--set", "proxy_filter=none"], 2, "give one"),
        (["--proxy-filter", "silver"], 2, "gold"),
        (["--method", "sga", "--train-data", "nowhere"], 3, "nowhere"),
        (["--method", "sga", "--train-data", "empty"], 3, "empty"),
        (["--victim", "resnet18", "--weights", "page.safetensors"], 3, "is a web page"),
        (["--victim", "resnet18", "--weights", "other.safetensors"], 3, "resnet18"),
        (["-o", "/proc/nowhere/uap.safetensors"], 3, "cannot write"),
        (["-o", "uap.npy"], 2, ".safetensors"),
        (["--device", "cuda:77"], 2, "--device cpu"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(
    args: list[str], code: int, message: str, place: Path, capsys: pytest.CaptureFixture
) -> None:
    from safetensors.torch import save_file

    (place / "empty").mkdir()
    (place / "page.safetensors").write_text("<!DOCTYPE html><html>Sign in</html>")
    save_file({"conv.weight": torch.zeros(3)}, place / "other.safetensors")
    before = sorted(p.name for p in place.iterdir())
    victim = [] if "--victim" in args else ["--victim", "small_victim:build"]
    got, out, err = run(capsys, "craft", "--budget", "100", *victim, *args)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith(("uapgen:", "Error:"))]
    assert len(errors) == 1
    assert sorted(p.name for p in place.iterdir() if p.name != "__pycache__") == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch=1.5", "cbgan: batch=1.5 is not a whole number; expected a whole number, 1 to"),
        ("lr=nan", "cbgan: lr=nan is not a finite number; expected a finite number, above 0"),
        ("gan=maybe", "cbgan: gan=maybe is unknown; expected true or false"),
        ("proxy_filter=glod", "cbgan: proxy_filter=glod is unknown; expected none or gold; did you mean 'gold'"),
        ("widht=3", "did you mean 'gan_width' or 'generator_width'"),
    ],
)
def test_a_wrong_parameter_leaves_no_folder(setting: str, message: str, place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uapgen", *CRAFT, "--set", setting, "-o", "w.safetensors"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not list(place.glob("w.*"))


def test_the_corrected_command_runs_after_one_that_was_refused(place: Path, capsys: pytest.CaptureFixture) -> None:
    args = ["craft", "--victim", "small_victim:build", "--proxy", "gaussian", "--budget", "20", "-o", "r.safetensors"]
    assert run(capsys, *args, "--method", "pnm-uap", "--set", "low=0.9")[0] == 2
    assert not list(place.glob("r.*"))
    assert run(capsys, *args, "--method", "pnm-uap", "--set", "low=0.6")[0] == 0


def test_missing_weights_offline_fail_fast(place: Path, capsys: pytest.CaptureFixture) -> None:
    import timm  # noqa: F401 (its import is not what is timed)

    started = time.monotonic()
    code, _, err = run(capsys, "craft", "--victim", "resnet50", "--eps", "10", "--offline")
    assert code == 3
    assert time.monotonic() - started < 2
    assert all(way in err for way in ("--weights FILE", "HF_HOME", "embedded/efficientnet_lite0", ":random"))


def test_sigkill_at_every_stage_ends_in_the_same_bytes(place: Path) -> None:
    command = [sys.executable, "-m", "uapgen", *CRAFT]
    for marker in ("gan/gan.safetensors", "generator.safetensors", "refine0.safetensors"):
        process = subprocess.Popen(
            [*command, "-o", "a.safetensors"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not (place / "a.safetensors.run" / marker).exists():
            assert process.poll() is None, f"ended before {marker} was there"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (place / "a.safetensors").exists()
    subprocess.run([*command, "-o", "a.safetensors"], check=True, capture_output=True)
    whole = {**os.environ, "UAPGEN_CACHE": str(place / "other-cache")}
    done = subprocess.run([*command, "-o", "b.safetensors"], check=True, capture_output=True, text=True, env=whole)
    assert (place / "a.safetensors").read_bytes() == (place / "b.safetensors").read_bytes()
    assert done.stdout == "b.safetensors\n"
    views = [line for line in done.stderr.splitlines() if "/1200 [" in line]
    assert sum("[00:00<?" in view for view in views) == 1, "one bar for the GAN, the generator and the refinement"
    assert [view.split(":")[0].strip() for view in (views[0], views[-1])] == ["gan", "refine0"]
    assert Perturbation.load(place / "a.safetensors").data_class == "none"
    assert not list(place.rglob("*.tmp"))


def test_interrupt_keeps_the_state(place: Path) -> None:
    process = subprocess.Popen(
        # A budget that it cannot reach before the signal does.
        [sys.executable, "-m", "uapgen", *CRAFT, "--budget", "100000", "--set", "gan=false", "-o", "c.safetensors"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job inherits that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (place / "c.safetensors.run" / "generator.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command" in err.splitlines()[-1]
    assert (place / "c.safetensors.run" / "options.json").exists()


def test_the_same_command_again_has_nothing_to_do(place: Path, capsys: pytest.CaptureFixture) -> None:
    args = ["craft", "--victim", "small_victim:build", "--method", "noise", "-o", "n.safetensors"]
    assert run(capsys, *args)[0] == 0
    first = (place / "n.safetensors").read_bytes()
    assert run(capsys, *args)[0] == 0
    assert (place / "n.safetensors").read_bytes() == first
    code, _, err = run(capsys, *args, "--seed", "1")
    assert code == 2
    assert "seed = 0 there, 1 now" in err
    assert "--restart" in err


def test_a_tar_crafts_what_its_folder_crafts(place: Path, capsys: pytest.CaptureFixture) -> None:
    write(place / "data", pictures(deep=False))
    pack(place / "data.tar", place / "data")
    small = ["craft", "--victim", "small_victim:build", "--method", "sga", "--budget", "64"]
    made = []
    for data in ("data", "data.tar", "data/*/?.png"):
        code, _, err = run(capsys, *small, "--train-data", data, "-o", "uap.safetensors", "--restart")
        assert code == 0, err
        made.append(Perturbation.load("uap.safetensors"))
        assert made[-1].card["data"]["sources"][0]["n"] == 4
    assert len({uap.sha256 for uap in made}) == 1
    assert len({uap.card["data"]["sources"][0]["list_sha256"] for uap in made}) == 1


def test_dry_run_writes_nothing(place: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, *CRAFT, "--proxy-filter", "gold", "--dry-run", "-o", "d.safetensors")
    assert code == 0
    plan = json.loads(out)
    assert plan["params"]["proxy_filter"] == "gold"
    assert plan["victim"]["name"] == "tiny"
    assert plan["eps"] == pytest.approx(10 / 255)
    assert plan["image_gradients"] == 1200
    assert plan["seconds"] >= 0
    assert plan["precision"] in ("fp32", "bf16")
    assert plan["stop_on"] is None
    assert plan["params"]["gan_from"] == 0  # as a number, like every value that was given as text
    assert not list(place.glob("d.*"))


def test_a_full_disk_is_an_error_and_not_half_a_file(place: Path) -> None:
    # The file-size limit stands in for a full disk: the write fails half-way, as it would there.
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); sys.argv = ['uapgen', *sys.argv[1:]];"
        "from uapgen.cli import main; main()"
    )
    args = ["craft", "--victim", "small_victim:build", "--method", "noise", "-o", "full.safetensors"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 3
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert not (place / "full.safetensors").exists()


def test_help_is_fast_and_lists_every_verb() -> None:
    done = subprocess.run([sys.executable, "-m", "uapgen", "--help"], capture_output=True, text=True, check=True)
    for verb in ("craft", "evaluate", "compare", "show", "apply", "import", "methods", "victims"):
        assert verb in done.stdout
    loads = "import sys, uapgen.cli; sys.exit(any(m in sys.modules for m in ('torch', 'timm', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", loads]).returncode == 0
