"""Images inside tars count like the same images in folders."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from tests.cli.test_evaluate import run, workplace
from tests.conftest import ROOT
from tests.images.test_sets import to_tensor, write_tree
from uapgen.errors import UapgenError, UsageError
from uapgen.images.sets import open_images

__all__ = ["workplace"]


def pack(tar: Path, folder: Path, inside: str = "") -> Path:
    """A tar of what is in `folder`, last names first, below the folder `inside`."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as held:
        for file in sorted(folder.rglob("*"), reverse=True):
            held.add(file, os.path.join(inside, file.relative_to(folder).as_posix()), recursive=False)
    return tar


def add(held: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    held.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize("inside", ["", "./", "val/images"])
def test_a_tar_of_class_folders_is_the_folder(tmp_path: Path, inside: str) -> None:
    root = write_tree(tmp_path / "data", "n04254680/größe.png", "n01440764/tench.JPEG", "n00000000/._hidden.png")
    (root / "n01440764" / "broken.png").write_bytes(b"no picture")
    folder, tar = open_images(root, to_tensor), open_images(pack(tmp_path / "val.tar", root, inside), to_tensor)
    prefix = "val/images/" if inside.startswith("val") else ""
    assert tar.names == [prefix + name for name in folder.names]
    assert tar.labels == folder.labels == [0, 0, 805]
    (one,), (other,), (worker,) = folder.batches(3, workers=0), tar.batches(3, workers=0), tar.batches(3, workers=1)
    assert torch.equal(one.images, other.images) and torch.equal(one.images, worker.images)
    assert one.corrupt[0][0] == other.corrupt[0][0] == worker.corrupt[0][0] == 0


def test_webdataset_shards_have_their_labels_in_cls_entries(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", *(f"{i}.png" for i in range(4)))
    (tmp_path / "shards").mkdir()
    for shard, keys in enumerate(((0, 1), (2, 3))):
        with tarfile.open(tmp_path / "shards" / f"{shard:05}.tar", "w") as held:
            for key in keys:
                add(held, f"{key:04}.png", (source / f"{key}.png").read_bytes())
                add(held, f"{key:04}.json", b"{}")
                if key < 3:
                    add(held, f"{key:04}.cls", [b"7", b"n01440764\n", b"1000"][key])
    images = open_images(tmp_path / "shards", to_tensor)
    assert images.names == ["00000/0000.png", "00000/0001.png", "00001/0002.png", "00001/0003.png"]
    assert images.labels == [7, 0, -1, -1]
    assert "labels unknown for 2 of 4 images: .cls '1000' is no class" in images.notes[0]
    limited = open_images(tmp_path / "shards", to_tensor, limit=2)
    assert (limited.labels, limited[1][0]) == ([7, -1], 1)


def test_a_shards_number_is_no_class_but_a_wordnet_name_is(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "source", "a.png")
    for name in ("00000", "00001"):
        pack(tmp_path / "shards" / f"{name}.tar", root)
    for num_classes in (2, 1000):
        assert open_images(tmp_path / "shards", to_tensor, num_classes=num_classes).labels == [-1, -1]
    for name in ("n04254680", "n01440764"):
        pack(tmp_path / "train" / f"{name}.tar", root)
    images = open_images(tmp_path / "train", to_tensor)
    assert (images.names, images.labels) == (["n01440764/a.png", "n04254680/a.png"], [0, 805])
    nested = open_images(pack(tmp_path / "train.tar", tmp_path / "train"), to_tensor)  # as ImageNet's own is
    assert (nested.names, nested.labels) == (images.names, images.labels)
    assert all(torch.equal(nested[i][1], images[i][1]) for i in range(2))


def test_a_table_beside_the_tars_comes_first(tmp_path: Path) -> None:
    pack(tmp_path / "data" / "one.tar", write_tree(tmp_path / "source", "3/a.png"))
    (tmp_path / "data" / "labels.csv").write_text("file,label\none/3/a.png,5\n")
    assert open_images(tmp_path / "data", to_tensor, num_classes=10).labels == [5]
    (tmp_path / "data" / "labels.csv").unlink()
    assert open_images(tmp_path / "data", to_tensor, num_classes=10).labels == [3]


def test_tars_that_cannot_be_read(tmp_path: Path) -> None:
    tar = pack(tmp_path / "a.tar", write_tree(tmp_path / "source", *(f"{i}.png" for i in range(20))))
    whole = tar.read_bytes()
    at = whole.index(b"7.png")
    for name, data in {
        "empty": b"",
        "text": b"no tar" * 200,
        "cut": whole[: at + 600],
        "cut between two": whole[:at],
        "damaged": whole[:at] + b"\x07" * 512 + whole[at + 512 :],
    }.items():
        tar.write_bytes(data)
        with pytest.raises(UapgenError, match=r"a\.tar cannot be read as a tar"):
            open_images(tar, to_tensor)
        assert name
    (tmp_path / "b.tar.gz").write_bytes(whole)
    with pytest.raises(UapgenError, match="is compressed"):
        open_images(tmp_path / "b.tar.gz", to_tensor)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").touch()
    with pytest.raises(UsageError, match="holds no image"):
        open_images(pack(tmp_path / "c.tar", tmp_path / "text"), to_tensor)


def test_evaluate_counts_a_tar_as_its_folder_alone_in_two_processes_and_resumed(workplace: Path) -> None:
    pack(workplace / "data.tar", workplace / "data")
    for data in ("data", "data.tar"):
        done = run("--data", data, "--json", f"{data}.json", "--run", f"{data}.run", "--batch-size", "7")
        assert done.exit_code == 0, done.output
    one, tar = (json.loads(Path(name).read_text()) for name in ("data.json", "data.tar.json"))
    for key in ("rows", "noise_floor"):
        assert one[key] == tar[key]
    assert one["rows"][0]["fooling_rate"]["count"] == 9
    assert [entry["file"] for entry in tar["victims"][0]["data"]["corrupt"]] == ["broken.png"]
    words = "-m torch.distributed.run --standalone --nproc-per-node 2 -m uapgen evaluate up.safetensors"
    rest = "--victim brightness:build --data data.tar --batch-size 7 --workers 1 --json two.json"
    source = ROOT
    env = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{workplace}", "OMP_NUM_THREADS": "1"}
    two = subprocess.run([sys.executable, *words.split(), *rest.split()], capture_output=True, env=env, timeout=120)
    assert two.returncode == 0, two.stderr
    assert json.loads(Path("two.json").read_text())["rows"] == one["rows"]
    again = run("--data", "data.tar", "--json", "again.json", "--run", "data.tar.run", "--batch-size", "7")
    assert again.exit_code == 0, again.output
    assert json.loads(Path("again.json").read_text())["rows"] == one["rows"]
