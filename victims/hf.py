"""Image classifiers that transformers saved: a folder with config.json, weights and preprocessor_config.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import UapgenError
from .spec import Loaded, adjusted, seeded_init
from .victim import Preprocessing

PROCESSOR = "preprocessor_config.json"
RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
SQUASHED_FROM = 384  # ConvNeXt's processor crops below this side and squashes from it on


class Logits(nn.Module):
    """The model's logits alone, with the channels turned round for models that were trained on BGR."""

    def __init__(self, model: nn.Module, bgr: bool) -> None:
        super().__init__()
        self.model, self.bgr = model, bgr

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x.flip(1) if self.bgr else x).logits


def saved_by_timm(folder: Path) -> bool:
    """Whether the config.json in `folder` is timm's. Raises UapgenError when it cannot be read."""
    return "architecture" in read_json(folder / "config.json")


def load_transformers(folder: Path, name: str) -> Loaded:
    """The classifier in `folder`, with the normalisation and size that its preprocessor_config.json states.

    Nothing is fetched and no code from the folder runs. Raises UapgenError without the package, for a folder that
    lacks a file or a tensor, and for what this reader does not understand.
    """
    architectures = read_json(folder / "config.json").get("architectures") or ["an unnamed model"]
    if "ForImageClassification" not in str(architectures[0]):
        raise UapgenError(f"{name} holds {architectures[0]}; expected an image classifier (...ForImageClassification)")
    if not (folder / PROCESSOR).is_file():
        raise UapgenError(f"{name} has no {PROCESSOR}: its normalisation would be a guess; copy it from its origin")
    processor = read_json(folder / PROCESSOR)
    preprocessing = processor_preprocessing(processor, name)
    module = Logits(_model(folder, name), bool(processor.get("do_flip_channel_order")))
    return Loaded(module, name, "pretrained", preprocessing, source=f"{architectures[0]} in {folder.name}")


def processor_preprocessing(config: Mapping[str, Any], name: str) -> Preprocessing:
    """A processor's settings as ours. It computes (255 x * rescale_factor - image_mean) / image_std for pixels x in
    [0,1]; EfficientNet's divides by image_std once more. Raises UapgenError for settings that are missing or odd.
    """
    origin = f"{name}/{PROCESSOR}"
    if config.get("rescale_offset"):
        raise UapgenError(f"{origin} has a rescale_offset, which is not supported; wrap the model as module:function")
    try:
        values = {**_normalisation(config), **_geometry(config)}
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        expected = "expected image_mean, image_std, and a size or crop_size"
        raise UapgenError(f"{origin} is not usable ({type(error).__name__}: {error}); {expected}") from error
    number = config.get("resample")
    if isinstance(number, int) and 0 <= number < len(RESAMPLE):
        values["interpolation"] = RESAMPLE[number]
    return dataclasses.replace(adjusted(Preprocessing(), values, origin), origin=origin)


def _normalisation(config: Mapping[str, Any]) -> dict[str, Any]:
    span = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    mean, std = [0.0] * 3, [1.0] * 3
    # MobileViT's processor, the one that flips channels, never normalises, whatever means its file carries.
    if config.get("do_normalize", "do_flip_channel_order" not in config):
        mean, std = list(config["image_mean"]), list(config["image_std"])
    if config.get("include_top"):
        std = [s * s for s in std]
    return {"mean": [m / span for m in mean], "std": [s / span for s in std]}


def _geometry(config: Mapping[str, Any]) -> dict[str, Any]:
    size, crop_pct = config.get("size"), config.get("crop_pct")
    resized, cropped = _sides(size), _sides(config.get("crop_size"))
    crops = cropped is not None and bool(config.get("do_center_crop", True))
    # A bare number was the shorter edge where a crop follows, and both edges where none does.
    edge = "shortest_edge" in size if isinstance(size, dict) else crops
    if crops and cropped:
        share = crop_pct or min(cropped) / min(resized or cropped)
        return {"input_size": cropped, "crop_pct": min(share, 1.0), "crop_mode": "center" if edge else "squash"}
    if not resized:
        raise ValueError("no size")
    if crop_pct and resized[0] < SQUASHED_FROM:
        return {"input_size": resized, "crop_pct": crop_pct, "crop_mode": "center"}
    return {"input_size": resized, "crop_pct": 1.0, "crop_mode": "center" if edge and not crop_pct else "squash"}


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, dict) and {"height", "width"} <= size.keys():
        return size["height"], size["width"]
    if isinstance(size, dict) and "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    return None


def _model(folder: Path, name: str) -> nn.Module:
    try:
        from transformers import AutoModelForImageClassification
    except ImportError as error:
        raise UapgenError(f"victim {name} was saved by transformers and needs it; pip install 'uapgen[hf]'") from error
    try:
        with seeded_init():
            model, info = AutoModelForImageClassification.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # files, shapes, unknown kinds of model: no common base class
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UapgenError(f"transformers could not load {name}: {reason}") from error
    if lacking := sorted(info["missing_keys"]):
        raise UapgenError(f"{name} lacks {len(lacking)} tensors ({', '.join(lacking[:3])}): they would be random")
    module: nn.Module = model.float()
    return module


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`. Raises UapgenError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UapgenError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise UapgenError(f"{path} holds no JSON object; copy it again")
    return content
