"""torchvision's classifiers: those that timm lacks (AlexNet, GoogLeNet, SqueezeNet), or torchvision's own weights."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import UapgenError, UsageError, did_you_mean
from .config import Loaded, seeded_init
from .network import need_network, torch_cache
from .spec import Spec
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
