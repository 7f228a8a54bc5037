"""Other people's formats: what is exported comes back, what does not fit is explained, code is never run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.perturbation.test_uap import EPS, make, noise
from uapgen.errors import UapgenError, UsageError
from uapgen.perturbation.exchange import export, import_perturbation
from uapgen.perturbation.picture import draw, pattern


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".pth"])
def test_float_exports_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    made = make()
    export(made, tmp_path / f"a{suffix}")
    back = import_perturbation(tmp_path / f"a{suffix}", unit="0..1", layout="CHW", eps=EPS)
    assert torch.equal(back.delta, made.delta)
    assert back.data_class == "unknown"


def test_png_export_is_lossless_for_whole_levels(tmp_path: Path) -> None:
    made = make((noise() * 255).round() / 255)
    export(made, tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, 0, 0] == 128 + round(float(made.delta[0, 0, 0]) * 255)
    back = import_perturbation(tmp_path / "a.png", unit="0..1", layout="CHW", eps=EPS)
    assert torch.allclose(back.delta, made.delta, atol=1e-7)


def test_png_export_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="200/255"):
        export(make(torch.full((3, 8, 8), 200 / 255), eps=200 / 255), tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"\.jpg"):
        export(make(), tmp_path / "a.jpg")


def test_units_layouts_and_channels_are_undone(tmp_path: Path) -> None:
    made = make()
    gd_uap_style = (255 * made.delta).flip(0).movedim(0, -1)[None].numpy()  # (1,H,W,3), levels, BGR
    np.save(tmp_path / "a.npy", gd_uap_style)
    back = import_perturbation(tmp_path / "a.npy", unit="0..255", layout="HWC", channels="BGR", eps=EPS)
    assert torch.allclose(back.delta, made.delta, atol=1e-7)


def test_dict_with_one_tensor_and_plain_safetensors(tmp_path: Path) -> None:
    delta = noise()
    torch.save({"uap": delta, "epoch": 3}, tmp_path / "a.pth")
    save_file({"uap": delta}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        assert torch.equal(import_perturbation(tmp_path / name, unit="0..1", layout="CHW", eps=EPS).delta, delta)
    torch.save({"a": delta, "b": delta}, tmp_path / "b.pth")
    with pytest.raises(UapgenError, match=r"2 tensors \(a, b\)"):
        import_perturbation(tmp_path / "b.pth", unit="0..1", layout="CHW", eps=EPS)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (255 * noise().numpy(), {"unit": "0..1"}, "with --unit 0..255 it would fit"),
        (noise().numpy(), {"unit": "0..255"}, "with --unit 0..1 it would fill eps"),
        (noise(eps=12 / 255).numpy(), {}, "it needs --eps 1"),
        (noise().numpy(), {"layout": "HWC"}, "fits --layout CHW"),
        (noise().movedim(0, -1).numpy(), {"layout": "CHW"}, "fits --layout HWC"),
        (np.zeros((2, 3, 8, 8), np.float32), {}, "one RGB perturbation"),
        (np.full((3, 8, 8), np.nan, np.float32), {}, "not finite"),
    ],
)
def test_what_does_not_fit_is_explained(
    tmp_path: Path, array: np.ndarray, options: dict[str, Any], message: str
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UapgenError, match=message):
        import_perturbation(tmp_path / "a.npy", **{"unit": "0..1", "layout": "CHW", "eps": EPS, **options})


def test_rounding_above_eps_is_projected(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((3, 8, 8), 1.005 * EPS, np.float32))
    back = import_perturbation(tmp_path / "a.npy", unit="0..1", layout="CHW", eps=EPS)
    assert float(back.delta.max()) == pytest.approx(EPS, abs=1e-8)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('ran code from a file')",)


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_pickled_objects_are_never_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    else:
        np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UapgenError, match="cannot be read"):
        import_perturbation(path, unit="0..1", layout="CHW", eps=EPS)


def test_html_saved_as_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("<html><body>Sign in</body></html>")
    with pytest.raises(UapgenError, match="HTML page"):
        import_perturbation(tmp_path / "a.pth", unit="0..1", layout="CHW", eps=EPS)
    with pytest.raises(UsageError, match="unit='levels'"):
        import_perturbation(tmp_path / "a.pth", unit="levels", layout="CHW", eps=EPS)


def test_picture_maps_the_bound_to_the_8_bit_range() -> None:
    delta = torch.tensor([EPS, 0.0, -EPS]).view(3, 1, 1).expand(3, 8, 8)
    assert pattern(make(delta))[:, 0, 0].tolist() == [255, 128, 0]


def test_picture_has_a_strip_and_is_no_perturbation(tmp_path: Path) -> None:
    sheet = draw(make(noise((32, 32))))
    assert sheet.width == 224
    assert sheet.height > 224 + 20
    strip = np.asarray(sheet)[228:]
    assert strip.min() < 100 < strip.max()  # black letters on white
    sheet.save(tmp_path / "p.png")
    with pytest.raises(UapgenError, match="above eps"):
        import_perturbation(tmp_path / "p.png", unit="0..255", layout="HWC", eps=EPS)


def test_side_by_side_shows_clean_and_perturbed() -> None:
    images = torch.full((2, 3, 224, 224), 0.5)
    sheet = np.asarray(draw(make(torch.full((3, 16, 16), EPS)), images))
    assert sheet.shape[1] == 3 * 224 + 8
    assert sheet[5, 228 + 5, 0] == 128
    assert sheet[5, 2 * 228 + 5, 0] == 138
