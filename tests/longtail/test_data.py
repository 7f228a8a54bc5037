"""Long-tailed splits against published counts and order, and every source of labelled images, written by the test."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.test_decode_tars import pack
from uapgen.errors import UapgenError, UsageError
from uapgen.longtail.data import LabelledImages, first_classes, holdout, long_tailed, long_tailed_counts, resized
from uapgen.longtail.files import lsun
from uapgen.longtail.sources import digits, load_data

CIFAR10 = {
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    1: [5000] * 10,
}


def labelled(per_class: int = 20, classes: int = 4, seed: int = 0) -> LabelledImages:
    """Pictures whose first pixel is their position, in shuffled order of labels."""
    labels = torch.arange(classes).repeat(per_class)[
        torch.randperm(per_class * classes, generator=torch.Generator().manual_seed(seed))
    ]
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    return LabelledImages(images, labels, classes, "made-up")


@pytest.mark.parametrize("imbalance", [1, 10, 100])
def test_cifar10_counts_are_the_published_ones(imbalance: int) -> None:
    assert long_tailed_counts(5000, 10, imbalance) == CIFAR10[imbalance]


def test_counts_of_cifar100_lsun_and_steps() -> None:
    counts = long_tailed_counts(500, 100, 100)
    assert (sum(counts), counts[0], counts[-1]) == (10_847, 500, 5)
    assert long_tailed_counts(50_000, 5, 100) == [50_000, 15_811, 5000, 1581, 500]
    assert long_tailed_counts(50_000, 5, 10) == [50_000, 28_117, 15_811, 8891, 5000]
    assert long_tailed_counts(5000, 10, 100, "step") == [5000] * 5 + [50] * 5
    assert long_tailed_counts(100, 3, 10, "step") == [100, 10, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 10, 0.5), "at least 1"),
        ((100, 10, float("inf")), "out of range"),
        ((100, 1, 10), "at least 2 classes"),
        ((50, 10, 100), "at most 50"),
        ((100, 10, 10, "linear"), "exp or step"),
    ],
)
def test_impossible_tails_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        long_tailed_counts(*arguments)


def test_split_holds_the_images_of_the_published_code() -> None:
    """The published code seeds numpy's global state once and shuffles the positions of class after class."""
    data = labelled()
    state = np.random.get_state()
    np.random.seed(0)
    expected = []
    for k, n in enumerate(long_tailed_counts(20, 4, 10)):
        positions = np.where(data.labels.numpy() == k)[0]
        np.random.shuffle(positions)
        expected += positions[:n].tolist()
    np.random.set_state(state)

    split = long_tailed(data, 10)
    assert split.images[:, 0, 0, 0].tolist() == expected
    assert split.labels.tolist() == sorted(split.labels.tolist())
    assert split.name == "made-up-lt10"
    assert long_tailed(data, 10, seed=1).images[:, 0, 0, 0].tolist() != expected


def test_split_without_shuffle_takes_the_first() -> None:
    data = labelled()
    split = long_tailed(data, 4, shuffle=False, kind="step")
    first = [int((data.labels == k).nonzero()[0]) for k in range(4)]
    assert [int(split.images[split.labels == k][0, 0, 0, 0]) for k in range(4)] == first
    assert split.counts().tolist() == [20, 20, 5, 5]


def test_split_of_too_few_images_names_the_class() -> None:
    with pytest.raises(UsageError, match="class 0 has 20 images, 30"):
        long_tailed(labelled(), 10, n_max=30)
    with pytest.raises(UapgenError, match=r"1 of 5 classes have no image \(4\)"):
        long_tailed(LabelledImages(labelled().images, labelled().labels, 5, "gap"), 2)


def test_holdout_and_first_classes() -> None:
    data = labelled()
    rest, held = holdout(data, 5)
    assert held.counts().tolist() == [5] * 4 and rest.counts().tolist() == [15] * 4
    both = torch.cat([rest.images, held.images])[:, 0, 0, 0]
    assert both.sort().values.tolist() == list(range(80))
    assert first_classes(data, 2).counts().tolist() == [20, 20]
    with pytest.raises(UsageError, match="has 4 classes; 5"):
        first_classes(data, 5)
    with pytest.raises(UsageError, match="cannot hold out 20"):
        holdout(data, 20)


def test_batches_are_seeded_pixels_of_their_label() -> None:
    data = labelled()
    images, labels = data.batch(500, torch.Generator().manual_seed(3))
    positions = (images[:, 0, 0, 0] * 255).round().long()
    assert images.dtype == torch.float32 and images.shape == (500, 3, 2, 2) and float(images.max()) <= 1
    assert torch.equal(data.labels[positions], labels)
    assert len(positions.unique()) > 70
    again = data.batch(500, torch.Generator().manual_seed(3))
    assert torch.equal(again[0], images) and torch.equal(again[1], labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), "expected torch.uint8"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2).long(), "expected torch.uint8"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(3).long(), "one an image"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.tensor([0, 3]), "labels are 0..3; 3 classes"),
        (torch.zeros(0, 3, 4, 4).byte(), torch.zeros(0).long(), "no image"),
    ],
)
def test_what_does_not_fit_is_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(UapgenError, match=message):
        LabelledImages(images, labels, 3, "bad")


def test_resized_keeps_constants_and_averages() -> None:
    data = labelled()
    assert torch.equal(resized(data, 8).images, data.images[:, :, :1, :1].expand(-1, -1, 8, 8))
    checks = torch.tensor([[0, 200], [200, 0]], dtype=torch.uint8).repeat(1, 3, 1, 1).view(1, 3, 2, 2)
    assert resized(LabelledImages(checks, torch.zeros(1).long(), 2, "c"), 1).images.flatten().tolist() == [100] * 3


def test_digits_parts_are_disjoint_and_grey() -> None:
    train, test = digits(), load_data("digits", train=False)
    assert (len(train), len(test), train.size, train.flips) == (1457, 340, (32, 32), False)
    assert test.counts().tolist() == [34] * 10 and int(train.counts().min()) == 140
    assert torch.equal(train.images[:, 0], train.images[:, 2]) and int(train.images.max()) == 255
    assert not {t.numpy().tobytes() for t in test.images} & {t.numpy().tobytes() for t in train.images}
    assert long_tailed(train, 100).counts().tolist()[-1] == 1


def photographs(n: int, size: int = 8) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (n, size, size, 3), dtype=np.uint8)


def encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")  # lossless, so that bytes can be compared
    return buffer.getvalue()


def test_npz_of_pixels_and_of_encoded_images_agree(tmp_path: Path) -> None:
    images, labels = photographs(130), np.arange(130) % 3
    files = [encoded(image) for image in images]
    offsets = np.cumsum([0, *map(len, files)]).astype(np.int32)
    np.savez(tmp_path / "pixels.npz", images=images, labels=labels.astype(np.uint8))
    np.savez(tmp_path / "bytes.npz", data=np.frombuffer(b"".join(files), np.uint8), offsets=offsets, labels=labels)
    pixels, decoded = load_data(str(tmp_path / "pixels.npz")), load_data(str(tmp_path / "bytes.npz"))
    assert torch.equal(pixels.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert torch.equal(pixels.images, decoded.images) and torch.equal(pixels.labels, decoded.labels)
    assert decoded.num_classes == 3 and decoded.name == "bytes"


def test_damaged_npz_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=np.zeros(9, np.uint8), offsets=np.array([0, 9]), labels=np.array([0]))
    with pytest.raises(UapgenError, match=r"a\.npz image 0 cannot be read"):
        load_data(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    with pytest.raises(UapgenError, match="holds x; expected labels"):
        load_data(str(tmp_path / "b.npz"))
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UapgenError, match=r"c\.npz cannot be read"):
        load_data(str(tmp_path / "c.npz"))


def test_folders_and_lists_give_the_same(tmp_path: Path) -> None:
    lines = []
    for k, image in enumerate(photographs(12)):
        place = tmp_path / "images" / str(k)  # "10" follows "9", not "1"
        place.mkdir(parents=True)
        (place / "a b.png").write_bytes(encoded(image))
        lines.append(f"{k}/a b.png {k}")
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    tree = load_data(str(tmp_path / "images"), size=8)
    table = load_data(str(tmp_path / "list.txt"), root=tmp_path / "images", size=8)
    assert torch.equal(table.images, torch.from_numpy(photographs(12)).permute(0, 3, 1, 2))
    order = tree.labels.argsort()
    assert torch.equal(tree.images[order], table.images) and tree.labels[order].tolist() == list(range(12))

    text = "\n".join(lines)
    for written in ("\ufeff" + text, text.replace("\n", "\r\n") + "\r\n\r\n", text.replace(".png ", ".png\t")):
        (tmp_path / "list.txt").write_bytes(written.encode())
        assert torch.equal(load_data(str(tmp_path / "list.txt"), root=tmp_path / "images", size=8).images, table.images)
    for raw, message in ((b"0/a b.png zero\n", "line 1"), (b"0/a.png\n", "line 1"), (b"\xe9/a.png 0\n", "in UTF-8")):
        (tmp_path / "list.txt").write_bytes(raw)
        with pytest.raises(UapgenError, match=message):
            load_data(str(tmp_path / "list.txt"), size=8)
    with pytest.raises(UsageError, match="a folder for each class"):
        load_data(str(tmp_path / "images" / "0"), size=8)


def test_tars_are_read_where_they_lie(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for k, image in enumerate(photographs(4)):
        (root / f"class {k % 2}").mkdir(parents=True, exist_ok=True)
        (root / f"class {k % 2}" / f"{k}.png").write_bytes(encoded(image))
    tree, tar = load_data(str(root), size=8), load_data(str(pack(tmp_path / "images.tar", root, "deep/train")), size=8)
    assert torch.equal(tree.images, tar.images)
    assert tree.labels.tolist() == tar.labels.tolist() == [0, 0, 1, 1]
    for k in range(4):
        (root / f"class {k % 2}" / f"{k}.cls").write_text(str(3 - k))
    shard = pack(tmp_path / "shards" / "0.tar", root)
    assert load_data(str(shard.parent), size=8).labels.tolist() == [3, 1, 2, 0]
    assert load_data(str(shard.parent / "*.tar"), size=8).num_classes == 4
    (root / "class 0" / "2.cls").unlink()
    pack(shard, root)
    with pytest.raises(UapgenError, match=r"has no \.cls number for 0/class 0/2\.png; every image needs one"):
        load_data(str(shard.parent), size=8)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_lie_anywhere(tmp_path: Path, zipped: bool) -> None:
    images, labels = photographs(4)[..., 0], np.array([7, 0, 9, 1], np.uint8)
    place = tmp_path / "MNIST" / "raw" if zipped else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        raw = head + array.tobytes()
        name = f"train-{kind}-ubyte" + (".gz" if zipped else "")
        (place / name).write_bytes(gzip.compress(raw) if zipped else raw)
    data = load_data("mnist", root=tmp_path)
    assert torch.equal(data.images[:, 1], torch.from_numpy(images)) and data.labels.tolist() == [7, 0, 9, 1]
    assert data.num_classes == 10 and not data.flips


def test_lsun_reads_the_first_of_each_database(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    for name in ("kitchen", "tower"):
        place = str(tmp_path / f"{name}_train_lmdb")
        with lmdb.open(place, map_size=1 << 20) as database, database.begin(write=True) as writing:
            for i, image in enumerate(photographs(3)):
                writing.put(f"{i}".encode(), encoded(image))
    data = lsun(tmp_path, ("kitchen", "tower"), size=8, per_class=2)
    first = torch.from_numpy(photographs(3)[:2]).permute(0, 3, 1, 2)
    assert torch.equal(data.images, torch.cat([first, first])) and data.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(UapgenError, match="bedroom_train_lmdb is not there"):
        load_data("lsun", root=tmp_path)


def test_missing_and_unknown_data(tmp_path: Path) -> None:
    with pytest.raises(UapgenError, match=r"cifar10 is not at hand \(.*give the folder"):
        load_data("cifar10", root=tmp_path)
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        load_data("cifar-10")
    with pytest.raises(UsageError, match="name the test part"):
        load_data(str(tmp_path), train=False)
    with pytest.raises(UsageError, match="has 10 classes; 20"):
        load_data("digits", num_classes=20)
