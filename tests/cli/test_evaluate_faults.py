"""What goes wrong during an evaluation ends in one line that says what to do, and in no half-written file."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.cli.test_evaluate import run, workplace
from tests.evaluation.test_fooling import brightness_victim, shift
from tests.test_runfolder import another_process
from uapgen.cli import main
from uapgen.errors import UapgenError
from uapgen.evaluation import evaluate
from uapgen.images.sets import open_images

__all__ = ["workplace"]


def test_a_full_disk_leaves_no_half_of_the_predictions(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Any, **arrays: Any) -> None:
        stream.write(b"PK")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez_compressed", full)
    done = run("--predictions", "p.npz", "--json", "result.json")
    assert isinstance(done.exception, UapgenError)
    assert "cannot write p.npz: No space left on device" in str(done.exception)
    assert not list(workplace.glob("*p.npz*"))
    assert Path("result.json").exists()  # what could be written is there


def test_a_victim_that_raises_on_one_batch_is_named_with_the_images(workplace: Path) -> None:
    class Picky(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if bool((x * 255 > 77.5).all() and (x * 255 < 78.5).all(dim=(1, 2, 3)).any()):
                raise ValueError("no such grey\nand more")
            return super().forward(x)

    victim = brightness_victim()
    victim.module = Picky(*victim.module.children())
    images = open_images("data", victim.transform, num_classes=2)
    with pytest.raises(UapgenError, match=r"^brightness raised ValueError \(no such grey\) on images 078\.png to 079"):
        evaluate(shift(0), victim, images, batch_size=2, workers=0)


def test_a_worker_that_dies_is_no_mystery(workplace: Path) -> None:
    def dies(image: Image.Image) -> Tensor:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("decoded in the main process")

    victim = brightness_victim()
    images = open_images("data", dies, num_classes=2)
    with pytest.raises(UapgenError, match=r"process that decodes images died.*--workers 0"):
        evaluate(shift(0), victim, images, workers=1)


def test_two_evaluations_in_one_folder_are_one_too_many(workplace: Path) -> None:
    with another_process(Path("runs") / "brightness") as other:
        done = run("--run", "runs")
        assert isinstance(done.exception, UapgenError)
        assert f"brightness is in use by process {other.pid}" in str(done.exception)
        assert run("--run", "others").exit_code == 0
    assert not (workplace / "others" / "brightness" / ".lock").exists()


def test_paths_that_are_not_ascii(workplace: Path) -> None:
    Path("data").rename("bilder-größe-图")
    done = run("--data", "bilder-größe-图", "--json", "ergebnis-é.json", "--predictions", "π.npz", "--run", "läufe")
    assert done.exit_code == 0, done.output
    assert "bilder-größe-图" in done.stdout
    assert np.load("π.npz")["name"][0] == "000.png"
    assert Path("ergebnis-é.json").is_file()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(workplace: Path) -> None:
    Path("locked").touch()  # no folder, so that not even root can write into it
    for words in (["--json", "locked/r.json"], ["--predictions", "locked/p.npz"], ["--run", "locked/run"]):
        done = run(*words)
        assert isinstance(done.exception, UapgenError), words
        assert "cannot write" in str(done.exception)


def test_one_line_on_stderr_and_exit_code_three(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (workplace / "raising.py").write_text(
        "import brightness\n"
        "def build():\n"
        "    victim = brightness.build()\n"
        "    victim.module.register_forward_pre_hook(lambda module, x: 1 / 0 if len(x[0]) == 30 else None)\n"
        "    return victim\n"
    )
    words = "evaluate up.safetensors --victim raising:build --data data --workers 0 --batch-size 30"
    monkeypatch.setattr(sys, "argv", ["uapgen", *words.split()])
    with pytest.raises(SystemExit) as done:
        main()
    err = capsys.readouterr().err
    assert done.value.code == 3
    assert "Traceback" not in err
    assert "brightness raised ZeroDivisionError" in err.splitlines()[-1]
