"""The verbs show, apply and import: results on stdout, rounding, names, and nothing overwritten by accident."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from tests.perturbation.test_uap import EPS, make, noise
from uapgen.cli.apply import command as apply_command
from uapgen.cli.apply import plan_names
from uapgen.cli.show import command as show_command
from uapgen.cli.show import import_command
from uapgen.errors import UapgenError, UsageError
from uapgen.perturbation import Perturbation


@pytest.fixture
def uap(tmp_path: Path) -> Path:
    path = tmp_path / "uap.safetensors"
    victim = {"name": "tiny", "weights": "user", "weights_sha256": "ab" * 32}
    make(noise((24, 32)), seed=4, victim=victim, cost={"image_gradients": 12000}).save(path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def run(command: object, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    if isinstance(result.exception, UapgenError):
        raise result.exception
    return result


def test_show_prints_a_card_for_people(uap: Path) -> None:
    text = run(show_command, uap).stdout
    for part in ("linf 10/255", "noise", "none (no images)", "tiny, weights user abababab", "12,000 image gradients"):
        assert part in text


def test_show_tells_what_a_run_did(tmp_path: Path) -> None:
    stages = [
        {"name": "gan", "steps": 28, "passes": 7, "image_gradients": 56, "batch": [8, 8]},
        {"name": "walk", "steps": 1200, "passes": 1200, "image_gradients": 4800, "batch": [1, 4], "images": [4, 4]},
        {"name": "rest", "steps": 2, "passes": 0, "image_gradients": 0},
    ]
    effective = {"steps": 1230, "batch": [1, 8], "gan": True, "stages": stages, "layers": ["conv1", "conv2", "conv3"]}
    path = tmp_path / "uap.safetensors"
    make(noise((24, 32)), method={"name": "m", "params": {"batch": 250}, "effective": effective}).save(path)
    lines = [" ".join(line.split()) for line in run(show_command, path).stdout.splitlines()]
    told = [line for line in lines if line.startswith(("did", "layers"))]
    assert told == [
        "did gan: 28 steps, 56 image gradients in batches of 8",
        "did walk: 1,200 steps, 4,800 image gradients in batches of 1 to 4, 4 images drawn a step",
        "did rest: 2 steps, 0 image gradients",
        "layers read 3: conv1 to conv3",
    ]
    make(noise((24, 32)), method={"name": "m", "effective": {}}).save(path)
    assert not any(line.strip().startswith("did") for line in run(show_command, path).stdout.splitlines())


def test_show_json_is_the_card_and_nothing_else(uap: Path, tmp_path: Path) -> None:
    result = run(show_command, uap, "--json", "--npy", tmp_path / "a.npy")
    assert json.loads(result.stdout) == Perturbation.load(uap).card
    assert "a.npy" in result.stderr
    assert np.array_equal(np.load(tmp_path / "a.npy"), Perturbation.load(uap).delta.numpy())


def test_show_exports_and_draws(uap: Path, photo: Path, tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("a.pt", "levels.png", "picture.png")}
    arguments = ["--pt", paths["a.pt"], "--levels", paths["levels.png"], "--png", paths["picture.png"], "--on", photo]
    assert "ok, sha256" in run(show_command, uap, "--verify", *arguments).stdout
    assert torch.equal(torch.load(paths["a.pt"], weights_only=True), Perturbation.load(uap).delta)
    assert Image.open(paths["levels.png"]).size == (32, 24)
    assert Image.open(paths["picture.png"]).width > 3 * 224


def test_show_refuses_suffixes_that_lie(uap: Path, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--npy .*ends in \.npy"):
        run(show_command, uap, "--npy", tmp_path / "a.txt")
    with pytest.raises(UsageError, match="give --png"):
        run(show_command, uap, "--on", photo)


def test_apply_writes_rounded_sums(uap: Path, photo: Path, tmp_path: Path) -> None:
    result = run(apply_command, uap, photo, "-o", tmp_path / "out")
    assert result.stdout.split() == [str(tmp_path / "out" / "photo.png")]
    clean = np.asarray(Image.open(photo)).astype(np.float64)
    delta = Perturbation.load(uap).delta.movedim(0, -1).double().numpy()
    expected = np.clip(np.rint(clean + 255 * delta), 0, 255)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "photo.png")), expected)


def test_apply_does_not_overwrite(uap: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(apply_command, uap, photo, "-o", out)
    with pytest.raises(UsageError, match=r"photo\.png exists.*--force"):
        run(apply_command, uap, photo, "-o", out)
    run(apply_command, uap, photo, "-o", out, "--force")
    with pytest.raises(UsageError, match="one of the images to read"):
        run(apply_command, uap, photo, "-o", tmp_path, "--force")


def test_apply_checks_every_size_before_it_writes(uap: Path, photo: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("RGB", (100, 50)).save(large)
    with pytest.raises(UsageError, match=r"large\.png is 100x50.*32x24.*--resize"):
        run(apply_command, uap, photo, large, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(apply_command, uap, photo, large, "-o", tmp_path / "out", "--resize")
    assert Image.open(tmp_path / "out" / "large.png").size == (100, 50)
    with pytest.raises(UapgenError, match=r"missing\.png is not there"):
        run(apply_command, uap, tmp_path / "missing.png", "-o", tmp_path / "out")


def test_apply_turns_photographs_upright(uap: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (24, 32)).save(tmp_path / "side.jpg", exif=exif)
    run(apply_command, uap, tmp_path / "side.jpg", "-o", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "side.png").size == (32, 24)


def test_names_stay_unique() -> None:
    files = [Path("a/cat.jpg"), Path("b/cat.png"), Path("c/Cat.png"), Path("cat-2.png")]
    names = [target.name for target in plan_names(files, Path("out"))]
    assert names == ["cat.png", "cat-2.png", "Cat-3.png", "cat-2-2.png"]


def test_import_writes_a_verified_file(tmp_path: Path) -> None:
    delta = noise()
    np.save(tmp_path / "a.npy", (255 * delta).movedim(0, -1).numpy())
    options = ["--unit", "0..255", "--layout", "HWC", "--eps", "10", "-o", tmp_path / "a.safetensors"]
    assert run(import_command, tmp_path / "a.npy", *options).stdout.strip() == str(tmp_path / "a.safetensors")
    read = Perturbation.load(tmp_path / "a.safetensors")
    assert torch.allclose(read.delta, delta, atol=1e-7)
    assert read.eps == EPS


def test_import_never_guesses(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise().numpy())
    with pytest.raises(UsageError, match="--unit"):
        run(import_command, tmp_path / "a.npy", "--layout", "CHW", "--eps", "10", "-o", tmp_path / "b.safetensors")
    with pytest.raises(UsageError, match="did you mean 10"):
        run(import_command, tmp_path / "a.npy", "--eps", "0.04", "-o", tmp_path / "b.safetensors")


def test_a_changed_file_exits_with_3_and_one_line(uap: Path) -> None:
    content = bytearray(uap.read_bytes())
    content[-4] ^= 1
    uap.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "uapgen", "show", str(uap), "--verify"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert "sha256 mismatch" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
