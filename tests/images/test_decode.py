"""Pictures of every mode and depth become 8-bit RGB, or are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uapgen.errors import UapgenError
from uapgen.images.decode import as_levels, centre_crop, decode, read_picture


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_reads_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(path)
    pixels = np.array(decode(path))
    assert pixels.shape == (4, 4, 3)
    assert pixels.min() >= 250


def test_sixteen_bit_grey_keeps_its_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255, 32768, 65535]], dtype=np.uint16)).save(path)
    assert np.array(decode(path))[0, :, 0].tolist() == [0, 0, 128, 255]


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").size == (6, 4)
    assert decode(tmp_path / "a.jpg", upright=True).size == (4, 6)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bit_files_of_every_kind_are_the_same(tmp_path: Path, name: str) -> None:
    levels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    if name.endswith("pgm"):
        (tmp_path / name).write_bytes(b"P5 16 16 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(tmp_path / name)
    assert np.array_equal(np.array(decode(tmp_path / name))[..., 1].ravel(), np.arange(256))
    assert decode((tmp_path / name).read_bytes()).tobytes() == decode(tmp_path / name).tobytes()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((4, 4), 0.5, np.float32), "floats of an unknown scale"),
        (np.full((4, 4), 70000, np.int32), "up to 70000"),
    ],
)
def test_pixels_of_an_unknown_scale_are_refused(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UapgenError, match=rf"a\.tif cannot be read as an image \(.*{message}.*8 or 16 bits\); remove"):
        read_picture(tmp_path / "a.tif", tmp_path / "a.tif")


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_broken_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(UapgenError, match=r"x\.tar/a\.png cannot be read as an image"):
        read_picture(data, "x.tar/a.png")


def test_a_picture_too_large_to_be_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(UapgenError, match=r"bomb\.png cannot be read .*exceeds limit"):
        read_picture(tmp_path / "bomb.png", tmp_path / "bomb.png")


def test_levels_are_rounded() -> None:
    assert as_levels(torch.tensor([-0.1, 0.0, 0.4999 / 255, 0.5001 / 255, 0.999, 1.1])).tolist() == [
        0,
        0,
        0,
        1,
        255,
        255,
    ]
    assert as_levels(torch.tensor([0, 7, 255], dtype=torch.uint8)).tolist() == [0, 7, 255]


def test_centre_crop_covers_and_cuts() -> None:
    image = Image.fromarray(np.tile(np.arange(0, 240, 2, dtype=np.uint8), (40, 1))).convert("RGB")  # 120 x 40
    pixels = centre_crop(40)(image)
    assert torch.equal(pixels[:, :, 0], torch.full((3, 40), 80, dtype=torch.uint8))  # column 40 of 120
    assert centre_crop((20, 30))(image).shape == (3, 20, 30)
