"""Which files are in the list, and which of them once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.images.test_decode_tars import pack
from tests.images.test_sets import write_grey, write_tree
from uapgen.errors import UapgenError, UsageError
from uapgen.images.listing import EXTENSIONS, find_images, spread


def test_order_is_that_of_the_paths_as_text(tmp_path: Path) -> None:
    write_tree(tmp_path, "b.png", "a-b/1.png", "a/2.PNG", "a/10.png", "a.png")
    assert find_images(tmp_path).names == ["a-b/1.png", "a.png", "a/10.png", "a/2.PNG", "b.png"]


@pytest.mark.parametrize("target", [".", "..", "a", "a/deep", "b"])
def test_links_that_lead_back_are_not_followed_twice(tmp_path: Path, target: str) -> None:
    root = write_tree(tmp_path / "data", "a/1.png", "a/deep/2.png", "b/3.png")
    for place in (root / "a" / "deep" / "link", root / "0"):  # a link's name comes first, and the folder's counts
        place.symlink_to(root / target)
    found = find_images(root)
    assert found.names == ["a/1.png", "a/deep/2.png", "b/3.png"]
    assert "links to folders that are listed already are left out: 0, a/deep/link" in found.notes


def test_links_to_elsewhere_are_followed_once(tmp_path: Path) -> None:
    write_tree(tmp_path / "real", "deep/1.png", "2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").symlink_to("../real")
    (tmp_path / "data" / "two").symlink_to("../real/deep")
    (tmp_path / "data" / "three.png").symlink_to("../real/2.png")  # of files, each is a picture
    assert find_images(tmp_path / "data").names == ["one/2.png", "one/deep/1.png", "three.png"]
    (tmp_path / "data" / "back").symlink_to("../real/deep/up")  # to nothing yet
    (tmp_path / "real" / "deep" / "up").symlink_to("../../data")
    assert find_images(tmp_path / "data").names == ["one/2.png", "one/deep/1.png", "three.png"]
    (tmp_path / "alias").symlink_to("data")
    assert find_images(tmp_path / "alias").names == find_images(tmp_path / "data").names


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    root = write_tree(tmp_path / ".cache" / "data", "a/1.png", ".ipynb_checkpoints/2.png", "a/.3.png", "a/.4/5.png")
    assert find_images(root).names == ["a/1.png"]  # what the folder itself is called does not matter
    assert find_images(pack(tmp_path / "x.tar", root)).names == ["a/1.png"]


def test_what_is_no_file_is_no_picture(tmp_path: Path) -> None:
    write_tree(tmp_path, "a.png", "folder.png/b.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "pipe2.png").symlink_to("pipe.png")
    assert find_images(tmp_path).names == ["a.png", "folder.png/b.png", "gone.png", "self.png"]  # broken ones are named


def test_every_extension_in_any_case(tmp_path: Path) -> None:
    for i, suffix in enumerate(sorted(EXTENSIONS)):
        (tmp_path / f"{i}{suffix.upper() if i % 2 else suffix}").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert len(find_images(tmp_path).names) == len(EXTENSIONS)


def test_patterns(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", "a/1.png", "a/2.jpg", "ab/deep/1.png", "c/1.png", ".h/1.png", "od[d]/1.png")
    for text, names in {
        "*/1.png": ["a/1.png", "c/1.png", "od[d]/1.png"],
        "a*": ["a/1.png", "a/2.jpg", "ab/deep/1.png"],
        "**/1.png": ["a/1.png", "ab/deep/1.png", "c/1.png", "od[d]/1.png"],
        "[ac]/?.png": ["a/1.png", "c/1.png"],
    }.items():
        found = find_images(root / text)
        assert (found.root, found.names) == (root, names), text
    deep = find_images(root / "ab" / "*" / "*")
    assert (deep.root, deep.names) == (root / "ab", ["deep/1.png"])
    assert find_images(root / "od[d]").names == ["1.png"]  # a folder of that name is no pattern
    with pytest.raises(UsageError, match=r"\*\.gif holds no image"):
        find_images(root / "*.gif")
    with pytest.raises(UsageError, match="is not there"):
        find_images(tmp_path / "nowhere" / "*.png")


def test_patterns_and_links_of_tars(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    for i in range(3):
        pack(shards / f"{i}.tar", write_tree(tmp_path / f"part{i}", f"{i}.png"))
    assert find_images(shards / "[01].tar").names == ["0/0.png", "1/1.png"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to("../shards")
    found = find_images(tmp_path / "data")
    assert found.names == ["link/0/0.png", "link/1/1.png", "link/2/2.png"]
    assert (
        found.size(found.names[0]) == len(found.read(found.names[0])) == (tmp_path / "part0" / "0.png").stat().st_size
    )
    (shards / "3.tar.gz").write_bytes(b"")
    with pytest.raises(UapgenError, match=r"3\.tar\.gz is compressed"):
        find_images(tmp_path / "data")
    assert len(find_images(shards / "*.tar").names) == 3


def test_the_hash_is_that_of_the_names(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", "a.png", "b/c.png")
    once = find_images(root)
    write_grey(root / "a.png", 7)
    assert find_images(root).sha256 == once.sha256 == find_images(pack(tmp_path / "x.tar", root)).sha256
    (root / "a.png").rename(root / "aa.png")
    assert find_images(root).sha256 != once.sha256


def test_spread_is_even_and_refuses_nothing() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 10) == spread(3, None) == [0, 1, 2]
    with pytest.raises(UsageError, match="at least 1"):
        spread(3, 0)
