"""Losses in closed form, the published network and schedule, and classifiers trained on digits in seconds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import SEED
from uapgen.errors import UapgenError, UsageError
from uapgen.images.warp import Crops, crop, draw_crops
from uapgen.longtail.classifier import channel_statistics, train_classifier
from uapgen.longtail.classifier.file import accuracy, balanced, class_accuracy, confusion
from uapgen.longtail.classifier.recipe import (
    Recipe,
    classification_loss,
    cross_entropy,
    effective_weights,
    focal,
    ldam,
    ldam_margins,
)
from uapgen.longtail.data import LabelledImages, long_tailed
from uapgen.longtail.sources import digits
from uapgen.victims import Preprocessing, Victim, load_victim
from uapgen.victims.trained import CifarResNet, CosineLinear, classifier_header, load_classifier, shortcut

TINY = Recipe(depth=8, width=4, epochs=2, batch=64, warmup=1)


def parameters(net: CifarResNet) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.fixture(scope="module")
def few() -> LabelledImages:
    return long_tailed(digits(), 10, n_max=30)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Victim]:
    folder = tmp_path_factory.mktemp("digits")
    recipe = Recipe(depth=8, width=8, epochs=8, batch=64, warmup=2, pad=2, decays=(0.1, 0.01))
    return folder, train_classifier(digits(), recipe, folder=folder, seed=SEED, test=digits(train=False), device="cpu")


def test_parameter_counts_are_the_published_ones() -> None:
    assert parameters(CifarResNet(32, 10)) == 464_154
    assert parameters(CifarResNet(20, 10)) == 269_722
    assert parameters(CifarResNet(32, 10, head="cosine")) == 464_144
    for depth in (2, 18, 33):
        with pytest.raises(UsageError, match="6n"):
            CifarResNet(depth)


def test_option_a_shortcut_subsamples_and_pads_with_zeros() -> None:
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    y = shortcut(x, 2, 4)
    assert y.shape == (2, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2]) and not y[:, :2].any() and not y[:, 6:].any()
    assert shortcut(x, 1, 0) is x


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = CifarResNet(8, 5, seed=3).state_dict()
    state = torch.random.get_rng_state()
    two = CifarResNet(8, 5, seed=3).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], CifarResNet(8, 5, seed=4).state_dict()["conv1.weight"])


def test_cosine_head_does_not_see_lengths() -> None:
    head = CosineLinear(6, 3, bias=False)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(7 * x), head(x))
    torch.testing.assert_close(head(head.weight.detach()).diagonal(), torch.full((3,), 30.0))


def test_focal_in_closed_form() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])  # p = 3/4, 1/4
    for y, p in ((0, 0.75), (1, 0.25)):
        label = torch.tensor([y])
        assert focal(logits, label).item() == pytest.approx(-(1 - p) * math.log(p))
        assert focal(logits, label, gamma=0.0).item() == pytest.approx(-math.log(p))
        weighted = focal(logits, label, torch.tensor([2.0, 2.0]))
        assert weighted.item() == pytest.approx(-(1 - p**2) * 2 * math.log(p))


def test_ldam_in_closed_form() -> None:
    margins = ldam_margins(torch.tensor([10_000, 625, 16]))
    torch.testing.assert_close(margins, torch.tensor([0.1, 0.2, 0.5]))
    logits, label = torch.tensor([[30 * 0.9, 30 * 0.3, 0.0]]), torch.tensor([1])
    lowered = torch.tensor([27.0, 30 * (0.3 - 0.2), 0.0])
    assert ldam(logits, label, margins).item() == pytest.approx(-lowered.log_softmax(0)[1].item(), rel=1e-5)
    assert ldam(logits, label, 0 * margins).item() == pytest.approx(cross_entropy(logits, label).item())


def test_effective_weights() -> None:
    counts = torch.tensor([5000, 500, 50, 1])
    weights = effective_weights(counts)
    raw = [1e-4 / (1 - 0.9999**n) for n in counts.tolist()]
    torch.testing.assert_close(weights, torch.tensor([4 * w / sum(raw) for w in raw]))
    assert weights.sum().item() == pytest.approx(4)
    assert torch.equal(effective_weights(counts, beta=0.0), torch.ones(4))
    torch.testing.assert_close(effective_weights(torch.tensor([7, 7, 7])), torch.ones(3))
    with pytest.raises(UsageError, match="class 1 has no image"):
        effective_weights(torch.tensor([3, 0]))


@pytest.mark.parametrize("name", ["ce", "focal", "ldam"])
def test_losses_by_name_have_gradients(name: str) -> None:
    logits = torch.zeros(4, 3, requires_grad=True)
    loss = classification_loss(name, torch.tensor([5, 4, 3]))(logits, torch.tensor([0, 1, 2, 2]), None)
    loss.backward()
    assert logits.grad is not None and float(logits.grad[0, 0]) < 0 < float(logits.grad[0, 1])
    with pytest.raises(UsageError, match="ce, focal or ldam"):
        classification_loss("hinge", torch.tensor([1, 1]))


def test_schedule_is_the_published_one() -> None:
    recipe = Recipe()
    rates = [recipe.rate(epoch) for epoch in range(200)]
    assert rates[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert rates[159:161] == pytest.approx([0.1, 0.001]) and rates[179:181] == pytest.approx([0.001, 0.00001])
    assert [recipe.reweights(epoch) for epoch in (0, 159, 160, 199)] == [False, False, True, True]
    assert not dataclasses.replace(recipe, deferred=False).reweights(199)


def test_crops_are_slices_of_the_padded_image() -> None:
    images = torch.randint(0, 256, (40, 3, 6, 5), generator=torch.Generator().manual_seed(0)).byte()
    crops = draw_crops(40, torch.Generator().manual_seed(1), pad=2, flip=True, device="cpu")
    padded = F.pad(images, (2, 2, 2, 2))
    for i, cropped in enumerate(crop(images, crops, pad=2)):
        top, left = int(crops.top[i]), int(crops.left[i])
        expected = padded[i, :, top : top + 6, left : left + 5]
        assert torch.equal(cropped, expected.flip(2) if crops.mirrored[i] else expected)
    assert crops.top.unique().tolist() == crops.left.unique().tolist() == [0, 1, 2, 3, 4]
    assert 8 < int(crops.mirrored.sum()) < 32
    still = Crops(*(torch.full((40, 1), v) for v in (2, 2)), torch.zeros(40, 1, dtype=torch.bool))
    assert torch.equal(crop(images, still, pad=2), images)


def test_channel_statistics_are_those_of_all_pixels() -> None:
    data = digits()
    mean, std = channel_statistics(data)
    pixels = data.images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=1e-4)
    black = LabelledImages(torch.zeros(2, 3, 2, 2).byte(), torch.arange(2), 2, "black")
    assert channel_statistics(black) == ((0.0,) * 3, (1e-3,) * 3)


def test_digits_are_learnt_and_the_file_says_how(trained: tuple[Path, Victim]) -> None:
    folder, victim = trained
    matrix = confusion(victim, digits(train=False))
    header = classifier_header(folder / "classifier.safetensors")
    assert accuracy(matrix) > 0.8  # chance is 0.1
    assert header["test"]["accuracy"] == accuracy(matrix) and header["test"]["n"] == int(matrix.sum()) == 340
    assert class_accuracy(matrix).mean().item() == pytest.approx(accuracy(matrix))  # 34 images of each
    assert header["trained_on"]["n"] == 1457 and header["training"]["epochs"] == 8 and balanced(header)
    assert not any(p.requires_grad for p in victim.module.parameters()) and not victim.module.training


def test_a_loaded_classifier_is_the_trained_one(trained: tuple[Path, Victim]) -> None:
    folder, victim = trained
    loaded = load_classifier(folder / "classifier.safetensors", device="cpu")
    x = digits(train=False).images[:8].float() / 255
    assert torch.equal(loaded(x), victim(x)) and loaded.describe() == victim.describe()
    normalised = (x - x.new_tensor(loaded.preprocessing.mean).view(1, 3, 1, 1)) / loaded.preprocessing.std[0]
    torch.testing.assert_close(loaded.module(normalised), loaded(x), atol=0.1, rtol=0.1)  # (bf16 on some processors)


def test_its_file_is_a_victim_without_an_architecture(trained: tuple[Path, Victim]) -> None:
    folder, victim = trained
    named = load_victim(f"file:{folder / 'classifier.safetensors'}", device="cpu")
    x = digits(train=False).images[:8].float() / 255
    assert torch.equal(named(x), victim(x)) and named.weights_sha256 == victim.weights_sha256


class Stop(Exception):
    pass


def test_an_interrupted_run_ends_in_the_same_bytes(few: LabelledImages, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, epochs=4, loss="ldam")

    def stop(epoch: int, stats: dict[str, float]) -> None:
        if epoch == 3:
            raise Stop

    train_classifier(few, recipe, folder=tmp_path / "whole", device="cpu", save_every=2)
    with pytest.raises(Stop):
        train_classifier(few, recipe, folder=tmp_path / "cut", device="cpu", save_every=2, callback=stop)
    train_classifier(few, recipe, folder=tmp_path / "cut", device="cpu", save_every=2)
    for name in ("classifier.safetensors", "stats.jsonl", "training.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert len((tmp_path / "cut" / "stats.jsonl").read_text().splitlines()) == 4
    assert not balanced(classifier_header(tmp_path / "cut" / "classifier.safetensors"))


def test_a_folder_of_other_data_is_refused(few: LabelledImages, tmp_path: Path) -> None:
    train_classifier(few, TINY, folder=tmp_path, device="cpu")
    with pytest.raises(UsageError, match="holds another run"):
        train_classifier(long_tailed(digits(), 5, n_max=30), TINY, folder=tmp_path, device="cpu")


def test_bad_runs_are_refused_or_stopped(few: LabelledImages, tmp_path: Path) -> None:
    gap = LabelledImages(few.images, few.labels, 11, "gap")
    with pytest.raises(UapgenError, match=r"1 of 11 classes have no image \(10\)"):
        train_classifier(gap, TINY, folder=tmp_path / "gap", device="cpu")
    with pytest.raises(UsageError, match="positive rate"):
        train_classifier(few, dataclasses.replace(TINY, lr=0.0), folder=tmp_path / "lr", device="cpu")
    with pytest.raises(UapgenError, match=r"loss became .* lower learning rate"):
        train_classifier(few, dataclasses.replace(TINY, lr=1e30), folder=tmp_path / "nan", device="cpu")
    assert not (tmp_path / "nan" / "classifier.safetensors").exists()


def test_plain_checkpoints_load_and_others_do_not(few: LabelledImages, tmp_path: Path) -> None:
    net = CifarResNet(14, 10, 8, seed=5)
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    grey = Preprocessing(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    victim = load_classifier(tmp_path / "plain.pth", preprocessing=grey, device="cpu", precision="fp32")
    x = few.images[:4].float() / 255
    torch.testing.assert_close(victim(x), net.eval()((x - 0.5) / 0.5))
    assert load_classifier(tmp_path / "plain.pth", device="cpu").preprocessing.mean[0] == 0.485
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UapgenError, match="no CIFAR ResNet"):
        load_classifier(tmp_path / "other.pth", device="cpu")


def test_confusion_counts_and_refuses_other_classes(trained: tuple[Path, Victim], few: LabelledImages) -> None:
    victim = trained[1]
    matrix = confusion(victim, few, batch=7)
    assert torch.equal(matrix.sum(1), few.counts())
    # In the same batches, since others may round a close call the other way.
    predicted = torch.cat([victim(part.float() / 255).argmax(1) for part in few.images.split(7)])
    assert torch.equal(matrix.sum(0), torch.bincount(predicted, minlength=10))
    with pytest.raises(UapgenError, match="has 10 classes"):
        confusion(victim, LabelledImages(few.images, few.labels, 12, "more"))


def test_deferred_weights_change_nothing_before_their_time(few: LabelledImages, tmp_path: Path) -> None:
    losses = []
    for deferred in (True, False):
        seen: list[float] = []
        recipe = dataclasses.replace(TINY, deferred=deferred, decay_at=(0.5,), decays=(1.0,))
        train_classifier(
            few,
            recipe,
            folder=tmp_path / str(deferred),
            device="cpu",
            callback=lambda epoch, stats, seen=seen: seen.append(stats["loss"]),
        )
        losses.append(seen)
    (with_first, with_second), (first, second) = losses
    assert with_first == first and with_second != second
