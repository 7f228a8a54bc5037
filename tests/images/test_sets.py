"""Which images an evaluation uses, in which order, and with which labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from uapgen.errors import UapgenError, UsageError
from uapgen.images.sets import open_images


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def write_grey(path: Path, level: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level,) * 3).save(path)


def write_tree(root: Path, *names: str) -> Path:
    for name in names:
        write_grey(root / name)
    return root


def test_wordnet_folders_give_imagenet_indices(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "n04254680/ball.png", "n01440764/tench.JPEG", "n00000000/nothing.png")
    images = open_images(root, to_tensor)
    assert images.names == ["n00000000/nothing.png", "n01440764/tench.JPEG", "n04254680/ball.png"]
    assert images.labels == [-1, 0, 805]  # tench is class 0 and soccer ball class 805 of ImageNet-1k
    assert "'n00000000' is no class" in images.notes[0]


def test_integer_folders_are_indices_whatever_their_order(tmp_path: Path) -> None:
    images = open_images(write_tree(tmp_path, "10/a.png", "2/b.png"), to_tensor, num_classes=20)
    assert dict(zip(images.names, images.labels, strict=True)) == {"10/a.png": 10, "2/b.png": 2}
    assert images.notes == ()


def test_folders_from_one_are_classes_from_zero(tmp_path: Path) -> None:
    root = write_tree(tmp_path, *(f"{i:02}/a.png" for i in range(1, 11)))
    images = open_images(root, to_tensor, num_classes=10)
    assert dict(zip(images.names, images.labels, strict=True)) == {f"{i:02}/a.png": i - 1 for i in range(1, 11)}
    assert "start at 1: folder 10 is class 9" in images.notes[0]
    assert open_images(root, to_tensor, num_classes=11).labels[-1] == 10  # folder 10: a class as it is
    (root / "0").mkdir()
    write_grey(root / "0" / "a.png")
    assert open_images(root, to_tensor, num_classes=10).labels[0] == 0
    assert "'10' is no class" in open_images(root, to_tensor, num_classes=10).notes[0]


def test_as_many_folders_as_classes_are_counted_in_order(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "dog/deep/a.png", "cat/b.png")
    images = open_images(root, to_tensor, num_classes=2)
    assert dict(zip(images.names, images.labels, strict=True)) == {"cat/b.png": 0, "dog/deep/a.png": 1}
    assert "alphabetical" in images.notes[0]
    unknown = open_images(root, to_tensor, num_classes=3)
    assert unknown.labels == [-1, -1]
    assert "labels unknown for 2 of 2" in unknown.notes[0]


def test_flat_folder_without_labels(tmp_path: Path) -> None:
    images = open_images(write_tree(tmp_path, "b.png", "a.png", ".hidden.png"), to_tensor)
    assert (images.names, images.labels) == (["a.png", "b.png"], [-1, -1])
    assert "fooling rates only" in images.notes[0]


def test_labels_csv_in_the_folder_and_given(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", "a.png", "b.png", "c.png")
    (root / "labels.csv").write_text("file,label\na.png,3\nb.png,n04254680\nz.png,1\n")
    images = open_images(root, to_tensor)
    assert images.labels == [3, 805, -1]
    assert len(images.notes) == 2
    other = tmp_path / "other.csv"
    other.write_text("label,file\n7,c.png\n")
    assert open_images(root, to_tensor, labels=other).labels == [-1, -1, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\na.png,1\n", "header file,label"),
        ("file,label\na.png,10\n", r"label '10' .* 0\.\.9"),
        ("file,label\na.png,dog\n", "label 'dog'"),
        ("file,label\na.png,1\na.png,2\n", "two labels"),
        ("file,label\nelsewhere/a.png,1\n", "none of the 1 images"),
        ("file,label\n", "none of the 1 images"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    root = write_tree(tmp_path / "data", "a.png")
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=message):
        open_images(root, to_tensor, labels=table, num_classes=10)
    table.rename(root / "labels.csv")  # found there, not asked for: only a note
    images = open_images(root, to_tensor, num_classes=10)
    assert images.labels == [-1]
    assert "labels unknown" in images.notes[0]


def test_missing_empty_and_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there; expected a folder"):
        open_images(tmp_path / "nowhere", to_tensor)
    with pytest.raises(UsageError, match="holds no image"):
        open_images(tmp_path, to_tensor)
    write_grey(tmp_path / "a.png")
    with pytest.raises(UsageError, match="is a file"):
        open_images(tmp_path / "a.png", to_tensor)
    with pytest.raises(UsageError, match="cannot be read"):
        open_images(tmp_path, to_tensor, labels=tmp_path / "nowhere.csv")


def test_foolbox_samples_are_twenty_labelled_images() -> None:
    images = open_images("foolbox", to_tensor)
    assert len(images) == 20
    assert images.names[0] == "imagenet_00_243.jpg"
    assert images.labels[0] == 243
    assert min(images.labels) >= 0
    assert "20 points" in images.notes[0]
    assert images[0][1].shape[0] == 3
    assert set(open_images("foolbox", to_tensor, num_classes=10).labels) == {-1}


def test_limit_is_spread_and_the_hash_knows(tmp_path: Path) -> None:
    root = write_tree(tmp_path, *(f"{folder}/{i}.png" for folder in range(3) for i in range(4)))
    limited = open_images(root, to_tensor, num_classes=3, limit=3)
    assert limited.labels == [0, 1, 2]
    again = open_images(root, to_tensor, num_classes=3, limit=3)
    assert limited.list_sha256 == again.list_sha256
    assert limited.list_sha256 != open_images(root, to_tensor, num_classes=3).list_sha256
    assert limited.list_sha256 != open_images(root, to_tensor, num_classes=2, limit=3).list_sha256  # other labels


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_images_without_overlap(tmp_path: Path, world: int) -> None:
    images = open_images(write_tree(tmp_path, *(f"{i}.png" for i in range(7))), to_tensor)
    seen = [
        int(position)
        for rank in range(world)
        for batch in images.batches(2, workers=0, rank=rank, world=world)
        for position in batch.positions
    ]
    assert sorted(seen) == list(range(7))


def test_worker_processes_deliver_the_same(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    images = open_images(write_tree(tmp_path, "a.png", "b.png"), to_tensor)
    (here,), (there,) = images.batches(3, workers=0), images.batches(3, workers=1)
    assert torch.equal(here.images, there.images)
    assert here.corrupt == there.corrupt
    assert here.corrupt[0][0] == images.names.index("broken.png")


def test_corrupt_share(tmp_path: Path) -> None:
    images = open_images(write_tree(tmp_path, *(f"{i:03}.png" for i in range(100))), to_tensor)
    images.check_corrupt([(3, "truncated")])
    with pytest.raises(UapgenError, match=r"2 of 100 .* 003\.png \(truncated\)"):
        images.check_corrupt([(3, "truncated"), (4, "truncated")])
