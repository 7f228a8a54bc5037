"""Every verb that reads pictures sees the same files, in the same order, with the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tests.evaluation.test_fooling import brightness_victim, shift
from tests.images.test_decode_tars import pack
from uapgen.attacks import craft
from uapgen.cli.apply import command as apply_command
from uapgen.cli.detect import _read as detect_read
from uapgen.evaluation import evaluate
from uapgen.hardening.attack import Settings, batches
from uapgen.images.sets import open_images
from uapgen.longtail import load_data
from uapgen.proxies import parse_source
from uapgen.testing import assert_robust
from uapgen.victims import Victim

SIZE = 16
CLASSES = ("a", "b")


def pictures(deep: bool) -> np.ndarray:
    """Two pictures of each class: (4,16,16) uint16, or (4,16,16,3) uint8."""
    draw = np.random.default_rng(0)
    return (
        draw.integers(0, 65536, (4, SIZE, SIZE), np.uint16)
        if deep
        else draw.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    )


def write(root: Path, images: np.ndarray) -> Path:
    for i, image in enumerate(images):
        place = root / CLASSES[i // 2] / f"{i % 2}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    return root


def sixteen_bit(tmp_path: Path) -> Path:
    return write(tmp_path / "data", pictures(deep=True))


def linked(tmp_path: Path) -> Path:
    """The folders of the classes are links, and one of their files leads back."""
    real = write(tmp_path / "real", pictures(deep=False))
    (tmp_path / "data").mkdir()
    for name in CLASSES:
        (tmp_path / "data" / name).symlink_to(real / name)
    (tmp_path / "data" / "loop").symlink_to(".")
    return tmp_path / "data"


def tarred(tmp_path: Path) -> Path:
    return pack(tmp_path / "data.tar", write(tmp_path / "real", pictures(deep=False)))


def pattern(tmp_path: Path) -> Path:
    root = write(tmp_path / "data", pictures(deep=False))
    Image.new("RGB", (SIZE, SIZE)).save(root / "a" / "other.png")
    return root / "*" / "[01].png"


def expected(tree: Callable[[Path], Path]) -> Tensor:
    """(4,3,16,16) uint8."""
    if tree is sixteen_bit:
        return torch.from_numpy((pictures(deep=True) >> 8).astype(np.uint8)).unsqueeze(1).expand(-1, 3, -1, -1)
    return torch.from_numpy(pictures(deep=False)).permute(0, 3, 1, 2)


def seen_by(victim: Victim, run: Callable[[], object]) -> Tensor:
    """The first batch that the network gets, as levels."""
    seen: list[Tensor] = []
    hook = victim.module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    run()
    hook.remove()
    return (seen[0] * 255).round().byte()


def through_evaluate(path: Path, out: Path) -> Tensor:
    victim = brightness_victim(size=SIZE)
    return seen_by(victim, lambda: evaluate(shift(0, size=SIZE), victim, open_images(path, victim), workers=0))


def through_testing(path: Path, out: Path) -> Tensor:
    victim = brightness_victim(size=SIZE)
    return seen_by(victim, lambda: assert_robust(victim, images=path, uaps=[shift(0, size=SIZE)], max_fooling_rate=1.0))


def through_craft(path: Path, out: Path) -> Tensor:
    source = parse_source(f"driven:{path}", SIZE, transform=brightness_victim(size=SIZE).transform)
    assert torch.equal(source.pixels, parse_source(f"folder:{path}", SIZE).pixels)
    return source.pixels


def through_apply(path: Path, out: Path) -> Tensor:
    shift(0, size=SIZE).save(out / "zero.safetensors")
    done = CliRunner().invoke(apply_command, [str(out / "zero.safetensors"), str(path), "-o", str(out / "out")])
    assert done.exit_code == 0, done.output
    return torch.stack([pil_to_tensor(Image.open(file)) for file in done.stdout.split()])


def through_detect(path: Path, out: Path) -> Tensor:
    return detect_read(str(path), None, 200)


def through_harden(path: Path, out: Path) -> Tensor:
    images = open_images(path, brightness_victim(size=SIZE))
    (batch,) = batches(images, Settings(eps=0.1, steps=1), 0, 1, workers=0)
    return batch.images[batch.positions.argsort()]


def through_gan_data(path: Path, out: Path) -> Tensor:
    data = load_data(str(path), size=SIZE)
    assert data.labels.tolist() == open_images(path, brightness_victim(size=SIZE)).labels == [0, 0, 1, 1]
    return data.images


DOORS = [
    through_evaluate,
    through_testing,
    through_craft,
    through_apply,
    through_detect,
    through_harden,
    through_gan_data,
]


@pytest.mark.parametrize("tree", [sixteen_bit, linked, tarred, pattern])
@pytest.mark.parametrize("door", DOORS)
def test_equal_files_and_equal_pixels(door: Callable, tree: Callable[[Path], Path], tmp_path: Path) -> None:
    assert torch.equal(door(tree(tmp_path), tmp_path), expected(tree))


@pytest.mark.parametrize("tree", [sixteen_bit, linked, tarred, pattern])
def test_an_evaluation_knows_the_images_that_were_crafted_on(tree: Callable[[Path], Path], tmp_path: Path) -> None:
    victim, path = brightness_victim(size=SIZE), tree(tmp_path)
    source = parse_source(f"driven:{path}", SIZE, transform=victim.transform)
    uap = craft(victim, method="sga", source=source, budget=8, seed=0)
    assert uap.data_class == "driven"
    (warning,) = [text for text in evaluate(uap, victim, open_images(path, victim)).warnings if "very folder" in text]
    assert warning.startswith("sga was crafted on images of this very folder")


def test_a_hash_counts_as_a_source_and_nowhere_else(tmp_path: Path) -> None:
    images = open_images(write(tmp_path, pictures(deep=False)), brightness_victim(size=SIZE))
    own = images.describe_source()
    assert images.made_on([{"source": "mixture", "parts": [{"weight": 1.0, **own}]}])
    assert images.subset([0]).made_on([{"source": "delta-crops", "prior": own}])  # another part of the same folder
    assert not images.made_on([{**own, "list_sha256": "other", "name": own["list_sha256"]}])
    assert not any(images.made_on(nothing) for nothing in (None, [], "text", [own["list_sha256"]]))
