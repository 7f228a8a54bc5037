"""Detection of a common pattern: exact p-values first, then false alarms and power, then the command."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.cli.test_craft import run
from tests.conftest import ROOT
from uapgen.detect import detect, holm, permutation_p, residual, sign_flip_p, whitened
from uapgen.errors import UsageError
from uapgen.proxies import Procedural
from uapgen.runtime import rng

SIDE = 48


def clean(n: int, seed: int) -> Tensor:
    return (Procedural(SIDE).batch(n, rng(seed, "test detect")) * 255).round().byte()


def with_pattern(images: Tensor, delta: Tensor) -> Tensor:
    return (images.float() + delta).round().clamp(0, 255).byte()


def signs(eps: float) -> Tensor:
    return eps * (torch.randint(0, 2, (3, SIDE, SIDE), generator=rng(0, "pattern")) * 2.0 - 1)


def write(folder: Path, images: Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image.movedim(0, -1).numpy()).save(folder / f"{number:03}.png")
    return folder


def test_sign_flip_p_is_the_share_of_all_sign_patterns() -> None:
    fields = torch.randn(8, 5, generator=rng(3), dtype=torch.float64) + 0.7
    patterns = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64)
    energy = (patterns @ fields).square().sum(1)
    exact = float((energy >= energy[-1] - 1e-9).double().mean())
    assert 0.005 < exact < 0.5
    assert sign_flip_p(fields @ fields.T, 20_000, rng(1)) == pytest.approx(exact, abs=0.012)


@pytest.mark.parametrize("test", ["sign", "permutation"])
def test_p_values_are_uniform_without_a_pattern(test: str) -> None:
    p_values = []
    for seed in range(600):
        scales = torch.rand(14, 1, generator=rng(seed, "scale"), dtype=torch.float64) ** 3  # a few fields outweigh all
        fields = scales * torch.randn(14, 30, generator=rng(seed, "field"), dtype=torch.float64)
        gram = fields @ fields.T
        draws = rng(seed, "draws")
        p_values.append(sign_flip_p(gram, 199, draws) if test == "sign" else permutation_p(gram, 6, 199, draws))
    p = torch.tensor(p_values)
    for alpha in (0.05, 0.2, 0.5, 0.8):
        assert (p <= alpha).float().mean() == pytest.approx(alpha, abs=4 * (alpha * (1 - alpha) / 600) ** 0.5)


def test_p_values_stay_above_what_the_draws_allow() -> None:
    gram = torch.ones(30, 30, dtype=torch.float64)
    assert sign_flip_p(gram, 99, rng(0)) == 1 / 100
    apart = torch.block_diag(torch.ones(15, 15), torch.eye(15)).double()
    assert permutation_p(apart, 15, 99, rng(0)) == 1 / 100
    assert permutation_p(torch.ones(30, 30).double(), 15, 99, rng(0)) == 1  # what all have in common counts for nothing


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


def test_fields() -> None:
    flat = torch.full((2, 3, SIDE, SIDE), 0.3)
    assert residual(flat).abs().max() == 0
    assert whitened(flat).abs().max() == 0
    x = torch.rand(2, 3, SIDE, SIDE, generator=rng(0))
    lengths = torch.fft.fft2(whitened(x), norm="ortho").abs()
    assert lengths[..., 0, 0].max() < 1e-3  # the mean is taken away
    assert torch.allclose(lengths.flatten(2)[..., 1:], torch.tensor(1.0), atol=1e-3)
    for field in (residual, whitened):  # the mirror test rests on this
        assert torch.allclose(field(x.flip(-1)), field(x).flip(-1), atol=1e-4)


def test_false_alarms_keep_to_alpha_on_procedural_images() -> None:
    alarms = sum(detect(clean(30, seed), alpha=0.1, seed=seed).detected for seed in range(15))
    assert alarms <= 5  # more has a chance of 0.2% at 0.1


@pytest.mark.parametrize("eps", [10, 3])
def test_a_pattern_on_fifty_images_is_found(eps: float) -> None:
    images = clean(50, 1)
    assert not detect(images).detected
    found = detect(with_pattern(images, signs(eps)))
    assert found.verdict == "detected"
    assert all(test.p == 1 / 10_000 for test in found.tests)
    assert 0.4 * eps < found.rms < eps  # edges of the images hide a part of it
    cosine = torch.nn.functional.cosine_similarity(found.mean.flatten(), signs(eps).flatten(), dim=0)
    assert cosine > (0.8 if eps == 10 else 0.5)  # the picture shows the pattern


def test_a_smooth_pattern_is_found() -> None:
    coarse = torch.randint(0, 2, (1, 3, 6, 6), generator=rng(0)) * 20.0 - 10
    pattern = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0]
    assert detect(with_pattern(clean(50, 2), pattern)).detected


def test_bright_details_are_no_pattern() -> None:
    """Residuals that are not symmetric: the signs alone would raise an alarm, the mirror does not."""
    for seed in range(5):
        dots = torch.rand(100, 1, SIDE, SIDE, generator=rng(seed, "dots")) < 0.02
        found = detect((dots * 120 + 60).expand(-1, 3, -1, -1).byte().contiguous())
        assert found.tests[0].p_values["sign"] < 0.01 < found.tests[0].p_values["mirror"]
        assert not found.detected


def test_a_reference_takes_common_structure_out() -> None:
    images, reference = clean(40, 4), clean(40, 5)
    images[..., 5:9, 3:20] = reference[..., 5:9, 3:20] = torch.tensor([[200], [0], [90]]).byte().unsqueeze(-1)  # a logo
    assert detect(images).detected
    assert not detect(images, reference).detected
    found = detect(with_pattern(images, signs(10)), reference)
    assert found.detected
    assert 4 < found.rms < 10


def test_too_few_images_are_inconclusive_and_not_clean() -> None:
    images = clean(8, 0)
    assert detect(images).verdict == "inconclusive"
    assert detect(clean(9, 0)).verdict == "not detected"
    images[:] = torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1)
    images[0], images[1] = clean(2, 1)
    assert detect(images).blank == 6


@pytest.mark.parametrize(
    ("images", "reference", "alpha", "message"),
    [
        (clean(1, 0), None, 0.01, "1 image"),
        (clean(3, 0), clean(1, 0), 0.01, "1 image"),
        (clean(3, 0)[..., :12], None, 0.01, "12x48"),
        (clean(3, 0), clean(3, 0)[..., :40], 0.01, "--size"),
        (torch.full((9, 3, 20, 20), 7, dtype=torch.uint8), None, 0.01, "of one colour"),
        (clean(3, 0), None, 0.0, "alpha"),
        (clean(3, 0), None, float("nan"), "alpha"),
    ],
)
def test_bad_input(images: Tensor, reference: Tensor | None, alpha: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        detect(images, reference, alpha=alpha)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    images = clean(50, 1)
    write(tmp_path / "clean", images)
    write(tmp_path / "ünclean", with_pattern(images, signs(10)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code, out, err = run(capsys, "detect", "clean", "--fail")
    assert (code, "not detected" in out) == (0, True), err
    command = [sys.executable, "-m", "uapgen", "detect", "ünclean", "--fail", "--json", "--picture", "mean.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "detected"
    assert [test["name"] for test in found["tests"]] == ["mean residual", "spectrum"]
    assert Image.open(tmp_path / "mean.png").size == (SIDE, SIDE)


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = str(write(tmp_path / "bad", with_pattern(clean(20, 1), signs(10))))
    few = str(write(tmp_path / "few", clean(4, 1)))
    assert run(capsys, "detect", bad)[0] == 0
    assert run(capsys, "detect", bad, "--fail")[0] == 1
    assert run(capsys, "detect", few)[0] == 0
    assert run(capsys, "detect", few, "--fail")[0] == 4


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "one", clean(1, 0))
    mixed = write(tmp_path / "mixed", clean(12, 0))
    Image.new("RGB", (60, 48), "red").save(mixed / "zz.png")
    for name, code, message in (
        ("empty", 2, "no image"),
        ("nowhere", 2, "not there"),
        ("one", 2, "1 image"),
        ("mixed", 2, "zz.png is 60x48"),
    ):
        assert (run(capsys, "detect", str(tmp_path / name))[0]) == code
        assert message in run(capsys, "detect", str(tmp_path / name))[2]
    assert run(capsys, "detect", str(mixed), "--size", "32")[0] == 0
    assert "0.5]" in run(capsys, "detect", str(mixed), "--alpha", "2")[2]
    assert ".png" in run(capsys, "detect", str(mixed), "--picture", "mean.jpg")[2]
    (mixed / "zz.png").write_bytes(b"no picture")
    code, _, err = run(capsys, "detect", str(mixed))
    assert (code, "zz.png" in err) == (3, True)  # one of 13 is more than a stray file
