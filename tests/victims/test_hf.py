"""Folders of checkpoints: timm's by timm, transformers' by transformers (a stand-in where it is not installed)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.conftest import gratings
from uapgen.errors import UapgenError, UsageError
from uapgen.runtime import module_sha256
from uapgen.victims import load_victim
from uapgen.victims.hf import processor_preprocessing

PROCESSOR: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def folder(path: Path, processor: dict[str, Any] | None = PROCESSOR, kind: str = "NetForImageClassification") -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"architectures": [kind], "model_type": "net"}))
    if processor is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


@pytest.fixture
def stand_in(tiny_module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A `transformers` whose one model is the tiny network; what it was asked for, and what it says of the loading."""
    seen: dict[str, Any] = {"info": {"missing_keys": set()}}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny_module

        def forward(self, pixel_values: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=self.net(pixel_values), loss=None)

    def from_pretrained(path: Path, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
        seen.update(path=path, **options)
        return Net(), seen["info"]

    module = ModuleType("transformers")
    vars(module)["AutoModelForImageClassification"] = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setitem(sys.modules, "transformers", module)
    return seen


def test_logits_are_unwrapped_and_normalised_as_the_processor_says(
    stand_in: dict[str, Any], tiny_module: nn.Module, tmp_path: Path
) -> None:
    victim = load_victim(f"local-dir:{folder(tmp_path / 'tiny')}", device="cpu", precision="fp32")
    pictures = gratings(8, seed=3)[0]
    torch.testing.assert_close(victim(pictures), tiny_module((pictures - 0.5) / 0.5), rtol=1e-4, atol=1e-4)
    assert stand_in["local_files_only"] is True and stand_in["trust_remote_code"] is False
    assert (victim.name, victim.num_classes, victim.preprocessing.interpolation) == ("local-dir:tiny", 10, "bicubic")
    assert victim.preprocessing.origin == "local-dir:tiny/preprocessor_config.json"
    assert victim.features(pictures).shape == (8, 64) and victim.layers()


def test_channels_are_turned_round_for_models_of_bgr(
    stand_in: dict[str, Any], tiny_module: nn.Module, tmp_path: Path
) -> None:
    processor = {key: value for key, value in PROCESSOR.items() if key != "do_normalize"}  # as MobileViT's has it
    path = folder(tmp_path / "bgr", {**processor, "do_flip_channel_order": True})
    victim = load_victim(f"local-dir:{path}", device="cpu", precision="fp32")
    pictures = gratings(4, seed=3)[0]
    torch.testing.assert_close(victim(pictures), tiny_module(pictures.flip(1)), rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_said(stand_in: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UapgenError, match="normalisation would be a guess"):
        load_victim(f"local-dir:{folder(tmp_path / 'a', processor=None)}", device="cpu")
    with pytest.raises(UapgenError, match="holds NetModel; expected an image classifier"):
        load_victim(f"local-dir:{folder(tmp_path / 'b', kind='NetModel')}", device="cpu")
    stand_in["info"] = {"missing_keys": {"classifier.weight"}}
    good = folder(tmp_path / "c")
    with pytest.raises(UapgenError, match=r"lacks 1 tensors \(classifier.weight\): they would be random"):
        load_victim(f"local-dir:{good}", device="cpu")
    with pytest.raises(UsageError, match=f"is a folder; say --victim local-dir:{good}"):
        load_victim(str(good), device="cpu")
    (good / "config.json").write_text("{")
    with pytest.raises(UapgenError, match=r"cannot read .*config.json"):
        load_victim(f"local-dir:{good}", device="cpu")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UapgenError, match=r"needs it; pip install 'uapgen\[hf\]'"):
        load_victim(f"local-dir:{folder(tmp_path / 'd')}", device="cpu")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ((3, 32, 32), 1.0, "squash")),
        ({"size": 224}, ((3, 224, 224), 1.0, "squash")),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, ((3, 224, 224), 0.875, "center")),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
            ((3, 224, 224), 0.875, "center"),
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, ((3, 224, 224), 0.875, "center")),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, ((3, 384, 384), 1.0, "squash")),
        ({"size": {"shortest_edge": 224}, "crop_size": 224, "crop_pct": 0.9}, ((3, 224, 224), 0.9, "center")),
        ({"crop_size": {"height": 289, "width": 289}, "do_center_crop": False}, ((3, 32, 32), 1.0, "squash")),
    ],
)
def test_sizes_and_crops(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    p = processor_preprocessing({**PROCESSOR, **changes}, "x")
    assert (p.input_size, pytest.approx(p.crop_pct), p.crop_mode) == expected


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({"image_mean": [0.1, 0.2, 0.3]}, (0.1, 0.2, 0.3), (0.5,) * 3),
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({"rescale_factor": 1 / 127.5}, (0.25,) * 3, (0.25,) * 3),  # (2x - 0.5) / 0.5
        ({"include_top": True}, (0.5,) * 3, (0.25,) * 3),
    ],
)
def test_normalisation_in_closed_form(changes: dict[str, Any], mean: tuple[float], std: tuple[float]) -> None:
    p = processor_preprocessing({**PROCESSOR, **changes}, "x")
    assert p.mean == pytest.approx(mean) and p.std == pytest.approx(std)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_mean": None},
        {"image_std": [0.5, 0, 0.5]},
        {"image_mean": "grey"},
        {"size": None},
        {"size": "large"},
        {"size": {"height": None, "width": 3}},
        {"rescale_factor": None},
        {"rescale_factor": 0},
        {"rescale_offset": True},
        {"crop_size": 0},
    ],
)
def test_odd_processors_raise_nothing_but_uapgen_errors(changes: dict[str, Any]) -> None:
    with pytest.raises(UapgenError, match=r"x/preprocessor_config.json"):
        processor_preprocessing({**PROCESSOR, **changes}, "x")


def test_a_folder_that_timm_saved_needs_no_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model("test_resnet", num_classes=10).eval()
    config = {"num_classes": 10, "input_size": [3, 64, 64], "mean": [0.4] * 3, "std": [0.2] * 3}
    timm.models.save_for_hf(model, tmp_path / "saved", model_config=config)
    victim = load_victim(f"local-dir:{tmp_path / 'saved'}", device="cpu", precision="fp32", offline=True)
    x = torch.rand(2, 3, *victim.input_size[1:], generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (victim.preprocessing.mean, victim.preprocessing.std))
    torch.testing.assert_close(victim(x), model((x - mean) / std), rtol=1e-4, atol=1e-5)
    assert victim.num_classes == 10 and victim.weights_sha256 == module_sha256(model)


@pytest.mark.parametrize("kind", ["vit", "convnext", "mobilevit"])
def test_real_checkpoints(kind: str, tmp_path: Path) -> None:
    """Random weights of transformers' own: their processor and model say what ours says, and layers carry gradients."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from PIL import Image

    tiny = {"num_labels": 5, "image_size": 32}
    config, processor = {
        "vit": (
            transformers.ViTConfig(**tiny, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=8),
            transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
        ),
        "convnext": (
            transformers.ConvNextConfig(**tiny, hidden_sizes=[8] * 4, depths=[1] * 4),
            transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0),
        ),
        "mobilevit": (
            transformers.MobileViTConfig(**{**tiny, "image_size": 64}, hidden_sizes=[16, 16, 16]),
            transformers.MobileViTImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
        ),
    }[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForImageClassification.from_config(config).train()
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = None  # statistics of one batch, without which a deep net's first logits are all zero
        for weight in (p for p in model.parameters() if p.ndim > 1):
            nn.init.kaiming_normal_(weight)
        side = 64 if kind == "mobilevit" else 32
        model(pixel_values=torch.rand(8, 3, side, side))
        model.eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    victim = load_victim(f"local-dir:{tmp_path}", device="cpu", precision="fp32")
    picture = torch.randint(0, 256, (3, *victim.input_size[1:]), generator=torch.Generator().manual_seed(1))
    image = Image.fromarray(picture.byte().movedim(0, -1).numpy())
    expected = model(**processor(image, return_tensors="pt")).logits
    spread = float(expected.detach().std())
    assert spread > 1e-3
    torch.testing.assert_close(victim(victim.transform(image)[None] / 255), expected, rtol=1e-3, atol=1e-2 * spread)
    assert victim.num_classes == 5 and len(victim.layers()) > 1 and victim.warnings == []
    probe = victim.probe(torch.rand(1, *victim.input_size, requires_grad=True), victim.layers())
    assert all(layer.requires_grad for layer in probe.layers)
