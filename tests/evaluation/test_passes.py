"""Evaluation behind defences, beside attacks on single images, and after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.utils import save_image

from tests.conftest import TINY, gratings
from tests.evaluation.test_fooling import brightness_victim, shift
from uapgen.defences import parse_defences
from uapgen.errors import UsageError
from uapgen.evaluation import Evaluation, Rate, Session, evaluate
from uapgen.evaluation import passes as predict
from uapgen.evaluation.document import EvaluationDocument
from uapgen.evaluation.table import document, render
from uapgen.images.sets import ImageSet, open_images
from uapgen.perturbation import Perturbation
from uapgen.perturbation.card import OPEN
from uapgen.schema import make, to_json
from uapgen.victims import Victim

LEVELS = [100, 110, 118, 119, 120, 127, 128, 130, 200, 250]
EPS = 10 / 255


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """Flat greys with their brightness as label: 1 below 127.5."""
    lines = ["file,label"]
    for level in LEVELS:
        save_image(torch.full((3, 4, 4), level / 255), tmp_path / f"{level:03}.png")
        lines.append(f"{level:03}.png,{int(level < 127.5)}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gratings")
    pictures, labels = gratings(48, seed=7)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        (root / str(int(label))).mkdir(exist_ok=True)
        save_image(picture, root / str(int(label)) / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def ridges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of an upright ridge, in eight places that are two pixels apart and eight or more from the edge."""
    root = tmp_path_factory.mktemp("ridges")
    for i in range(48):
        away = (torch.arange(32.0) - 2 * (i % 8) - 8.3).abs()
        save_image((0.8 - 0.15 * away).clamp_min(0.2).expand(3, 32, 32), root / f"{i:02}.png")
    return root


def ridge_victim() -> Victim:
    """Sixteen classes, the brightness of two columns each: a ridge that moves by two pixels is of another class."""
    linear = nn.Linear(32, 16)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(16).repeat_interleave(2, dim=1))
        linear.bias.zero_()
    module = nn.Sequential(nn.AvgPool2d((32, 1)), nn.Flatten(2), Mean(), linear)
    return Victim(module, name="ridge", preprocessing=TINY, device="cpu", precision="fp32")


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def signs() -> Perturbation:
    delta = EPS * (torch.randint(0, 2, (3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2.0 - 1)
    return Perturbation.create(delta, eps=EPS, method={"name": "signs"}, data={"class": "none"})


def test_every_row_of_the_matrix_has_one_name() -> None:
    layout = predict.Layout(patterns=2, defences=3, references=2)
    matrix = predict.ClassMatrix(torch.arange(layout.rows).view(-1, 1).expand(-1, 5), layout)
    named = [matrix.clean(), matrix.adv(0), matrix.adv(1)]
    named += [row for d in range(3) for row in (matrix.clean(d), matrix.adv(0, d), matrix.adv(1, d))]
    named += [matrix.reference(0), matrix.reference(1)]
    assert [int(row[0]) for row in named] == list(range(layout.rows)) == list(range(14))


def test_two_bits_by_hand(greys: Path) -> None:
    # Two bits leave 0, 85, 170 and 255, and round from 127.5 and 212.5 on: the threshold at 100 moves to 127.5.
    victim = brightness_victim(threshold=99.5)
    images = open_images(greys, victim.transform, num_classes=2)
    result = evaluate([shift(9), shift(-9)], victim, images, defences=parse_defences("none,bits2"), noise_floor=False)
    (defended,) = result.defended
    assert result.rows[0].fooling_rate == Rate(0, 10)
    assert defended.changed == Rate(6, 10)  # 100 .. 127 go down to 85
    assert defended.clean_accuracy == Rate(10, 10)
    up, down = defended.rows
    assert up.fooling_rate == Rate(3, 10)  # 119, 120, 127 pass 127.5
    assert defended.undefended[0] == Rate(3, 10)  # 100, 110, 118 stay at 85
    assert down.fooling_rate == Rate(2, 10)  # 128 and 130
    assert defended.undefended[1] == Rate(8, 10)
    assert down.adversarial_accuracy == Rate(8, 10)


def test_nothing_fools_nobody_behind_a_random_defence(ridges: Path) -> None:
    victim = ridge_victim()
    images = open_images(ridges, victim.transform, num_classes=16)
    zero = Perturbation.create(torch.zeros(3, 32, 32), eps=EPS, method={"name": "zero"}, data={"class": "none"})
    result = evaluate(zero, victim, images, defences=parse_defences("shift8,resize-pad"), noise_floor=False)
    for defended in result.defended:
        assert defended.rows[0].fooling_rate.count == 0
        assert defended.undefended[0] == defended.changed
        assert defended.changed.count > 5  # of 48; draws are the same everywhere, and move ridges by two pixels or more


def test_batch_size_changes_nothing_and_the_seed_does(ridges: Path) -> None:
    victim = ridge_victim()
    images = open_images(ridges, victim.transform, num_classes=16)

    def run(batch_size: int, seed: int = 0) -> Evaluation:
        defences = parse_defences("resize-pad,jpeg75,median3,shift4")
        return evaluate(signs(), victim, images, batch_size=batch_size, seed=seed, defences=defences)

    one, other = run(48), run(7)
    assert torch.equal(one.predictions.defended_clean, other.predictions.defended_clean)
    assert torch.equal(one.predictions.defended_adv, other.predictions.defended_adv)
    assert [d.noise[0].fooling_rate for d in one.defended] == [d.noise[0].fooling_rate for d in other.defended]
    assert torch.equal(one.predictions.clean, evaluate(signs(), victim, images).predictions.clean)
    assert not torch.equal(one.predictions.defended_clean, run(48, seed=1).predictions.defended_clean)


def test_attacks_on_single_images_start_at_the_pattern(picture_folder: Path, tiny_victim: Victim) -> None:
    images = open_images(picture_folder, tiny_victim.transform, num_classes=10)
    short = Perturbation.create(signs().delta / 2, eps=EPS, method={"name": "short"}, data={"class": "none"})
    names = "linf-pgd:5,fgsm,deepfool:5"
    result = evaluate([signs(), short], tiny_victim, images, per_image=names, batch_size=48)
    again = evaluate([signs(), short], tiny_victim, images, per_image=names, batch_size=48)
    assert [(r.row.method, r.uap) for r in result.references] == [
        ("linf-pgd", 0),
        ("linf-pgd", 1),
        ("fgsm", None),
        ("deepfool", None),
    ]
    for reference, same in zip(result.references, again.references, strict=True):
        assert reference.row.fooling_rate == same.row.fooling_rate
    assert result.references[0].row.fooling_rate.count > result.rows[0].fooling_rate.count + 5
    with pytest.raises(UsageError, match="l2-pgd is bounded in l2, and no perturbation here is"):
        evaluate(signs(), tiny_victim, images, per_image="l2-pgd")


def test_an_interrupted_evaluation_goes_on(
    picture_folder: Path, tiny_victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images(picture_folder, tiny_victim.transform, num_classes=10)
    defences = parse_defences("shift4")
    whole = evaluate(signs(), tiny_victim, images, defences=defences)
    monkeypatch.setattr("uapgen.evaluation.resume.SAVE_EVERY", 16)
    classes, seen, kept = predict.Looks.classes, [], Session(tmp_path / "run")

    def run(fail_after: int) -> Evaluation:
        def counted(looks: predict.Looks, victim: Victim, x: torch.Tensor, positions: list[int]) -> torch.Tensor:
            if len(seen) >= fail_after:
                raise KeyboardInterrupt
            seen.extend(positions)
            return classes(looks, victim, x, positions)

        monkeypatch.setattr(predict.Looks, "classes", counted)
        return evaluate(signs(), tiny_victim, images, defences=defences, batch_size=8, session=kept)

    with pytest.raises(KeyboardInterrupt):
        run(fail_after=24)
    result = run(fail_after=1000)
    assert sorted(seen) == sorted([*range(48), *range(16, 24)])  # 16 were saved, 8 were lost
    assert torch.equal(result.predictions.defended_adv, whole.predictions.defended_adv)
    assert result.rows[0].fooling_rate == whole.rows[0].fooling_rate
    run(fail_after=0)  # nothing is left to look at
    with pytest.raises(UsageError, match=r"holds another run .seed = 0 there, 1 now"):
        evaluate(signs(), tiny_victim, images, defences=defences, session=kept, seed=1)


def test_document_and_table_hold_it_all_and_old_documents_still_render(greys: Path) -> None:
    victim = brightness_victim()
    images: ImageSet = open_images(greys, victim.transform, num_classes=2)
    result = evaluate(shift(9), victim, images, defences=parse_defences("bits2"), per_image="fgsm")
    found = document([shift(9)], ["up.safetensors"], [result], data=str(greys))
    table = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert make(EvaluationDocument, table, "found", rules=OPEN) == found
    (row,) = table["defences"]
    assert row["defence"] == "bits2"
    assert row["noise_floor"]["n"] == row["moved_by_defence"]["n"] == row["fooling_rate_vs_undefended"]["n"] == 10
    assert set(table["rows"][0]) < set(row)
    assert [entry.row.method for entry in found.per_image] == ["fgsm"]
    text = render(found)
    assert "behind a defence" in text
    assert "per image" in text
    old = {key: value for key, value in table.items() if key not in ("defences", "per_image")}
    assert "defence" not in render(make(EvaluationDocument, old, "old", rules=OPEN))
