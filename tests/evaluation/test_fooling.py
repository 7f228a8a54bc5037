"""Fooling rates against answers worked out by hand, and what must not change them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import save_image

from tests.conftest import gratings
from uapgen.errors import UapgenError, UsageError
from uapgen.evaluation import Rate, evaluate
from uapgen.evaluation.document import EvaluationDocument
from uapgen.evaluation.fooling import noise_floors, perturb
from uapgen.evaluation.intervals import wilson
from uapgen.evaluation.results import Subject, count_row, find_warnings
from uapgen.evaluation.table import document, render
from uapgen.images.sets import open_images
from uapgen.perturbation import Perturbation
from uapgen.perturbation.card import OPEN
from uapgen.proxies.folder import Folder
from uapgen.schema import make, to_json
from uapgen.victims import Preprocessing, Victim

LEVELS = [100, 110, 118, 119, 120, 127, 128, 130, 200, 250]
EPS = 10 / 255


def brightness_victim(threshold: float = 127.5, size: int = 4) -> Victim:
    """Class 0 above the threshold (levels of 255), class 1 below: logits (mean brightness, threshold)."""
    linear = nn.Linear(3 * size * size, 2)
    with torch.no_grad():
        linear.weight.copy_(
            torch.stack([torch.full((3 * size * size,), 1 / (3 * size * size)), torch.zeros(3 * size * size)])
        )
        linear.bias.copy_(torch.tensor([0.0, threshold / 255]))
    plain = Preprocessing(input_size=(3, size, size), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
    return Victim(
        nn.Sequential(nn.Flatten(), linear), name="brightness", preprocessing=plain, device="cpu", precision="fp32"
    )


def shift(levels: float, eps: float = EPS, size: int = 4, **params: object) -> Perturbation:
    delta = torch.full((3, size, size), levels / 255)
    return Perturbation.create(delta, eps=eps, method={"name": "shift", "params": params}, data={"class": "none"})


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """One flat grey picture a level. 119 is mislabelled, 200 is not labelled."""
    lines = ["file,label"]
    for level in LEVELS:
        Image.new("RGB", (4, 4), (level,) * 3).save(tmp_path / f"{level:03}.png")
        lines += [f"{level:03}.png,{int(level < 127.5 and level != 119)}"] if level != 200 else []
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998), method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_the_published_examples(count: int, n: int, low: float, high: float) -> None:
    assert wilson(count, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - count, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_ends_and_nothing() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    assert Rate(0, 0).value is None
    assert Rate(0, 0).to_json()["ci95"] is None
    with pytest.raises(ValueError, match="11 successes in 10"):
        wilson(11, 10)


def test_counts_of_the_brightness_victim_by_hand(greys: Path) -> None:
    victim = brightness_victim()
    images = open_images(greys, victim.transform, num_classes=2)
    result = evaluate([shift(9), shift(-9)], victim, images, noise_floor=False)
    up, down = result.rows
    assert result.clean_accuracy == Rate(8, 9)  # all labelled ones but 119
    assert up.fooling_rate == Rate(3, 10)  # 119, 120 and 127 pass 127.5
    assert up.adversarial_accuracy == Rate(7, 9)  # 120 and 127 are lost; 119, mislabelled, now agrees
    assert up.success_on_correct == Rate(2, 8)
    assert up.histogram.tolist() == [7, 3]
    assert down.fooling_rate == Rate(2, 10)  # 128 and 130
    assert down.dominant() == [(1, 8), (0, 2)]
    assert up.targeted is None
    changed = result.predictions.clean != result.predictions.adv[0]
    assert [images.names[i] for i in changed.nonzero().flatten()] == ["119.png", "120.png", "127.png"]


def test_targeted_counts_by_hand(greys: Path) -> None:
    victim = brightness_victim()
    images = open_images(greys, victim.transform, num_classes=2)
    row = evaluate(shift(9, target=0), victim, images, noise_floor=False).rows[0]
    # Class 0 owns 119, 128, 130 and 250 by label, and 200 by its clean prediction.
    assert row.targeted == (Rate(7, 10), Rate(2, 5))


def test_zero_fools_nobody(greys: Path) -> None:
    victim = brightness_victim()
    images = open_images(greys, victim.transform, num_classes=2)
    for quantize in (True, False):
        result = evaluate(shift(0), victim, images, quantize=quantize)
        assert result.rows[0].fooling_rate == Rate(0, 10)
        assert result.rows[0].adversarial_accuracy == result.clean_accuracy


def test_rounding_to_eight_bits_decides(greys: Path) -> None:
    victim = brightness_victim(threshold=127.3)
    images = open_images(greys, victim.transform, num_classes=2)
    assert evaluate(shift(0.4), victim, images, quantize=False).rows[0].fooling_rate.count == 1  # 127.4 passes
    assert evaluate(shift(0.4), victim, images).rows[0].fooling_rate.count == 0  # but is 127 in a file
    x = torch.rand(2, 3, 4, 4)
    levels = perturb(x, shift(9).delta) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert perturb(torch.ones(1, 3, 4, 4), shift(9).delta).max() == 1


def test_labels_unknown_leaves_fooling_rates(greys: Path) -> None:
    (greys / "labels.csv").unlink()
    victim = brightness_victim()
    result = evaluate(shift(9), victim, open_images(greys, victim.transform, num_classes=2))
    row = result.rows[0]
    assert row.fooling_rate == Rate(3, 10)
    assert (result.clean_accuracy, row.adversarial_accuracy, row.success_on_correct) == (None, None, None)
    assert any("labels unknown" in text for text in result.warnings)


def test_noise_floor_is_one_row_for_each_budget(greys: Path) -> None:
    victim = brightness_victim()
    images = open_images(greys, victim.transform, num_classes=2)
    uaps = [shift(9), shift(5), shift(1, eps=2 / 255)]
    result = evaluate(uaps, victim, images)
    assert [(row.norm, row.eps) for row in result.noise] == [("linf", EPS), ("linf", 2 / 255)]
    assert result.floor(result.rows[2]) is result.noise[1]
    assert evaluate(uaps, victim, images, noise_floor=False).floor(result.rows[0]) is None


def test_noise_fills_its_ball_and_is_fixed_by_its_seed() -> None:
    l2 = Perturbation.create(shift(1).delta, eps=2.0, norm="l2", method={"name": "l2"}, data={"class": "none"})
    sup, euclid = (floor.delta for floor in noise_floors([shift(9), l2], seed=0))
    assert bool(torch.isclose(sup.abs(), torch.tensor(EPS)).all())
    assert 0.2 < float((sup > 0).float().mean()) < 0.8
    assert float(euclid.norm()) == pytest.approx(2.0, rel=1e-5)
    assert torch.equal(sup, noise_floors([shift(9)], seed=0)[0].delta)
    assert not torch.equal(sup, noise_floors([shift(9)], seed=1)[0].delta)


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gratings")
    pictures, labels = gratings(60, seed=7)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        (root / str(int(label))).mkdir(exist_ok=True)
        save_image(picture, root / str(int(label)) / f"{i}.png")
    return root


def test_batch_size_changes_no_prediction(picture_folder: Path, tiny_victim: Victim) -> None:
    images = open_images(picture_folder, tiny_victim.transform, num_classes=10)
    delta = EPS * (torch.randint(0, 2, (3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2.0 - 1)
    uap = Perturbation.create(delta, eps=EPS, method={"name": "noise"}, data={"class": "none"})
    sizes = [evaluate(uap, tiny_victim, images, batch_size=size) for size in (1, 7, 64)]
    assert sizes[0].clean_accuracy is not None
    assert sizes[0].clean_accuracy.count > 45
    for result in sizes[1:]:
        assert torch.equal(result.predictions.clean, sizes[0].predictions.clean)
        assert torch.equal(result.predictions.adv, sizes[0].predictions.adv)
        assert result.noise[0].fooling_rate == sizes[0].noise[0].fooling_rate


def test_one_corrupt_image_is_named_and_left_out(tmp_path: Path) -> None:
    victim = brightness_victim()
    for i in range(150):
        Image.new("RGB", (4, 4), (i,) * 3).save(tmp_path / f"{i:03}.png")
    (tmp_path / "077_broken.png").write_bytes((tmp_path / "077.png").read_bytes()[:40])
    result = evaluate(shift(9), victim, open_images(tmp_path, victim.transform, num_classes=2))
    assert result.rows[0].n == 150
    assert result.rows[0].fooling_rate == Rate(9, 150)  # 119 .. 127
    assert [entry.file for entry in result.data.corrupt] == ["077_broken.png"]
    assert any("077_broken.png" in text for text in result.warnings)
    assert int(result.predictions.clean[78]) == -1
    (tmp_path / "078.png").write_bytes(b"")
    with pytest.raises(UapgenError, match=r"2 of 151 .*077_broken"):
        evaluate(shift(9), victim, open_images(tmp_path, victim.transform, num_classes=2))


def test_size_must_fit_unless_resized(greys: Path) -> None:
    victim = brightness_victim()
    images = open_images(greys, victim.transform, num_classes=2)
    with pytest.raises(UsageError, match=r"8x8 .* takes 4x4; give --resize"):
        evaluate(shift(9, size=8), victim, images)
    assert evaluate(shift(9, size=8), victim, images, resize=True).rows[0].fooling_rate == Rate(3, 10)
    with pytest.raises(UsageError, match="no perturbation"):
        evaluate([], victim, images)


def test_logits_that_are_not_finite_are_no_prediction(greys: Path) -> None:
    class Broken(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0

    victim = brightness_victim()
    victim.module = Broken(*victim.module.children())
    with pytest.raises(UapgenError, match="not finite"):
        evaluate(shift(9), victim, open_images(greys, victim.transform, num_classes=2))


def test_white_box_and_warnings(greys: Path) -> None:
    victim = brightness_victim()
    images = open_images(greys, victim.transform, num_classes=2, limit=5)
    own = Perturbation.create(
        shift(9).delta,
        eps=EPS,
        method={"name": "own"},
        data={"class": "driven", "sources": [Folder(greys, victim.transform, data_class="driven").describe()]},
        victim=victim.describe(),
    )
    result = evaluate([own, shift(9)], victim, images)
    assert [row.white_box for row in result.rows] == [True, False]
    assert any("own was crafted on images of this very folder" in text for text in result.warnings)
    assert any("n = 5 is below 1000" in text for text in result.warnings)


def test_accuracy_at_chance_is_suspicious(greys: Path) -> None:
    victim = brightness_victim()
    images = open_images(greys, victim.transform, num_classes=2)
    texts = {count: find_warnings([], victim, images, 2000, Rate(count, 2000), []) for count in (1000, 1100)}
    assert any("not above chance" in text for text in texts[1000])
    assert not any("not above chance" in text for text in texts[1100])


def test_no_correct_image_leaves_success_unknown() -> None:
    labels = torch.arange(100) % 10
    row = count_row(labels, labels, labels.roll(1), 10, Subject.of(shift(0).facts))
    assert row.adversarial_accuracy == Rate(0, 100)
    assert row.success_on_correct == Rate(0, 0)
    assert str(row.success_on_correct) == "-"


def test_document_and_table(greys: Path) -> None:
    victim = brightness_victim()
    uap = shift(9, target=0)
    result = evaluate(uap, victim, open_images(greys, victim.transform, num_classes=2))
    found = document([uap], ["up.safetensors"], [result], data=str(greys))
    table = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert make(EvaluationDocument, table, "found", rules=OPEN) == found
    row = table["rows"][0]
    assert table["schema"] == "uapgen.evaluation/1"
    assert {key: row["fooling_rate"][key] for key in ("count", "n", "rate")} == {"count": 3, "n": 10, "rate": 0.3}
    assert row["eps_255"] == 10
    assert row["targeted_excluding_class"]["rate"] == 0.4
    assert [entry["count"] for entry in row["dominant_classes"]] == [7, 3]
    assert found.noise_floor[0].method == "random-sign"
    text = render(found)
    assert "UAP up.safetensors  shift, data-free, linf 10/255" in text
    low, high = (100 * bound for bound in wilson(3, 10))
    assert f"30.0 [{low:.1f}, {high:.1f}]" in text
    assert "! n = 10 is below 1000" in text
