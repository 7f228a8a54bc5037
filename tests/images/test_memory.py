"""Images in memory come in through the door of the files: equal pixels, labels, and refusals with the right call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.datasets import ImageFolder

import uapgen
from tests.evaluation.test_fooling import brightness_victim, shift
from tests.images.test_doors import pictures, write
from uapgen.errors import UsageError
from uapgen.evaluation import evaluate
from uapgen.images.sets import ImageSet, gather, open_images
from uapgen.proxies.folder import Folder
from uapgen.victims import Preprocessing, Victim

LABELS = [0, 0, 1, 1]
PIXELS = pictures(deep=False)  # (4,16,16,3)


def chw() -> Tensor:
    return torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


class Items(Dataset):
    """A dataset of whatever `make` makes of the position."""

    def __init__(self, make: Callable[[int], Any], n: int = 4) -> None:
        self.make, self.n, self.asked = make, n, list[int]()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        self.asked.append(i)
        return self.make(i)


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return ((chw()[i], LABELS[i]) for i in range(4))


def batches_of_dicts() -> DataLoader:
    return DataLoader(Items(lambda i: {"image": chw()[i], "label": LABELS[i]}), batch_size=3)


UNLABELLED: dict[str, Callable[[], Any]] = {
    "uint8 tensor": chw,
    "float tensor": lambda: chw().float() / 255,
    "half tensor": lambda: (chw().float() / 255).half(),
    "double array": lambda: chw().numpy().astype(np.float64) / 255,
    "big-endian array": lambda: (PIXELS / 255).astype(">f4"),
    "array NHWC": lambda: PIXELS,
    "array NCHW": lambda: chw().numpy(),
    "tensor NHWC": lambda: torch.from_numpy(PIXELS),
    "dataset of tensors": lambda: Items(lambda i: chw()[i]),
    "dataset of PIL": lambda: Items(lambda i: Image.fromarray(PIXELS[i])),
    "dataset of one": lambda: TensorDataset(chw()),
    "loader": lambda: DataLoader(Items(lambda i: chw()[i]), batch_size=3),
}
LABELLED: dict[str, Callable[[], Any]] = {
    "pair": lambda: (chw(), torch.tensor(LABELS)),
    "pair of arrays": lambda: (PIXELS, np.array(LABELS)),
    "pair with a list": lambda: [chw().float() / 255, LABELS],
    "dataset": lambda: TensorDataset(chw(), torch.tensor(LABELS)),
    "dataset of dicts": lambda: Items(lambda i: {"image": Image.fromarray(PIXELS[i]), "label": LABELS[i]}),
    "dataset with more": lambda: Items(lambda i: (PIXELS[i], LABELS[i], "name")),
    "loader": lambda: DataLoader(TensorDataset(chw().float() / 255, torch.tensor(LABELS)), batch_size=3),
    "loader of dicts": batches_of_dicts,
    "iterable dataset": Endless,
}


@pytest.fixture
def files(tmp_path: Path) -> ImageSet:
    return open_images(write(tmp_path, PIXELS), brightness_victim(size=16))


@pytest.mark.parametrize("form", [*UNLABELLED, *(f"labelled {form}" for form in LABELLED)])
def test_every_form_gives_the_pixels_of_the_files(form: str, files: ImageSet) -> None:
    labelled = form.removeprefix("labelled ") if form.startswith("labelled") else None
    images = open_images(LABELLED[labelled]() if labelled else UNLABELLED[form](), brightness_victim(size=16))
    assert torch.equal(images.read(), files.read())
    assert images.labels == (files.labels if labelled else [-1] * 4)
    assert (images.notes == ()) == bool(labelled)
    (batch,) = images.batches(4, workers=0)
    assert torch.equal(batch.images, files.read())


def test_results_are_those_of_the_files(files: ImageSet) -> None:
    victim = brightness_victim(127.5, size=16)
    uap = shift(9, size=16)
    one, other = evaluate(uap, victim, files), evaluate(uap, victim, open_images((PIXELS, LABELS), victim))
    assert one.rows[0].fooling_rate == other.rows[0].fooling_rate
    assert one.rows[0].adversarial_accuracy == other.rows[0].adversarial_accuracy
    assert one.rows[0].fooling_rate.count > 0


def test_other_sizes_pass_the_transform_as_files_do(tmp_path: Path) -> None:
    big = np.random.default_rng(1).integers(0, 256, (4, 40, 30, 3), np.uint8)
    plain = Preprocessing(input_size=(3, 16, 16), crop_pct=0.8)
    victim = Victim(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), name="x", preprocessing=plain, device="cpu")
    files = open_images(write(tmp_path, big), victim)
    assert torch.equal(open_images(big, victim).read(), files.read())
    assert torch.equal(open_images(big, victim.transform).read(), files.read())
    assert torch.equal(open_images(ImageFolder(tmp_path), victim).read(), files.read())
    assert torch.equal(open_images(chw(), victim).read(), chw())  # of the victim's size already
    assert not torch.equal(open_images(chw(), victim.transform).read(), chw())  # which a transform does not know
    assert open_images(big).read().shape == (4, 3, 40, 30)  # as they are


def test_dataset_is_asked_once_and_for_what_is_used() -> None:
    data = Items(lambda i: (torch.full((3, 4, 4), i, dtype=torch.uint8), i % 2), n=100)
    images = open_images(data, brightness_victim(), limit=4)
    assert data.asked == [0, 25, 50, 75]
    assert (images.names, images.labels) == (["0", "25", "50", "75"], [0, 1, 0, 1])
    assert images.read()[:, 0, 0, 0].tolist() == [0, 25, 50, 75]
    assert len(data.asked) == 4
    assert open_images((chw(), LABELS), limit=2).labels == [0, 1]


def test_the_hash_is_that_of_the_pixels_and_a_copy_is_kept() -> None:
    given = chw().clone()
    images = open_images(given)
    given += 1
    assert torch.equal(images.read(), chw())
    assert images.list_sha256 == open_images(PIXELS).list_sha256
    assert images.list_sha256 != open_images(given).list_sha256
    assert images.list_sha256 != open_images((PIXELS, LABELS)).list_sha256
    assert images.source.sha256 == open_images((PIXELS, LABELS), limit=2).source.sha256


def test_crafting_draws_from_memory_what_it_draws_from_files(files: ImageSet) -> None:
    memory = Folder(PIXELS, brightness_victim(size=16), data_class="driven")
    draw = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(memory.batch(7, draw[0]), Folder(files, data_class="driven").batch(7, draw[1]))
    card = memory.describe()
    assert (card["source"], card["name"], card["n"]) == ("memory", "memory", 4)
    assert open_images(PIXELS).made_on([card])
    assert not files.made_on([card])


def test_a_set_is_taken_as_it_is(files: ImageSet) -> None:
    assert open_images(files) == files
    assert open_images(files, limit=2).names == ["a/0.png", "b/0.png"]
    assert gather(files).labels == files.labels


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, r"images are a int; expected a path, a tensor \(N,3,H,W\)"),
        ({"image": PIXELS}, "images are a dict; expected a path"),
        (None, "images are a NoneType; expected"),
        (torch.rand(3, 4, 4), r"shape \(3, 4, 4\).*give images\[None\]"),
        (torch.rand(2, 1, 4, 4), r"shape \(2, 1, 4, 4\).*images\.expand\(-1, 3, -1, -1\)"),
        (torch.rand(0, 3, 4, 4), "N > 0"),
        (torch.rand(2, 3, 4, 4) * 255, r"expected \[0,1\]: divide them by 255"),
        (torch.randn(2, 3, 4, 4) * 3, r"expected \[0,1\]: normalisation is the victim's own"),
        (torch.full((2, 3, 4, 4), float("nan")), r"in \[nan, nan\]; expected \[0,1\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), "images are int64; expected floats .* or levels"),
        (np.zeros((2, 4, 4, 3), np.uint16), "images are uint16"),
        (np.zeros((2, 4, 4, 3), object), "images are object"),
        (np.zeros((2, 4, 4, 3), bool), "images are bool"),
        ((chw(), [0, 1]), r"labels are int64 \(2,\); expected 4 class indices"),
        ((chw(), torch.rand(4)), "labels are float32"),
        ((chw(), torch.eye(4).long()), r"labels\.argmax\(1\)"),
        ((chw(), [0, 1, 2, 1]), r"label 2 is no class of this victim; expected 0\.\.1"),
        ((chw(), [0, 1, -2, 1]), "label -2 is no class"),
        ([], "holds no image"),
        (Items(lambda i: "a.png"), "item 0 of the Items: the image is a str; expected a tensor"),
        (Items(lambda i: {"pixels": 3}), r"keys pixels; expected 'image'"),
        (Items(lambda i: torch.rand(1, 4, 4)), r"item 0 of the Items: .*shape \(1, 1, 4, 4\)"),
        (DataLoader(Items(lambda i: (i, i))), r"images have shape \(1,\)"),
    ],
)
def test_other_types_are_refused_with_the_right_call(data: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_images(data, brightness_victim())


def test_calls_that_lack_something_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, PIXELS)
    with pytest.raises(UsageError, match=r"give open_images\('.*', victim\)"):
        uapgen.open_images(str(path))
    with pytest.raises(UsageError, match=r"a Linear is no victim yet; give uapgen\.Victim\(module"):
        uapgen.open_images(path, nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a str is no victim yet; give uapgen\.load_victim"):
        uapgen.open_images(path, "tv/vgg16")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"give open_images\(\(images, labels\), \.\.\.\)"):
        uapgen.open_images(PIXELS, brightness_victim(size=16), labels=tmp_path / "x.csv")
    sizes = Items(lambda i: torch.rand(3, 8 + i, 8))
    with pytest.raises(UsageError, match="4 sizes; give open_images"):
        uapgen.open_images(sizes)
    assert len(uapgen.open_images(sizes, brightness_victim()).read()) == 4
