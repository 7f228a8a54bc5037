"""timm: registered names, `hf-hub:` repositories and `local-dir:` folders, with or without their published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UapgenError, UsageError, did_you_mean
from .hf import load_transformers, saved_by_timm
from .network import hub_cached, hub_offline, need_network, torch_cache
from .spec import Loaded, Spec, seeded_init
from .victim import Preprocessing
from .weights import load_state, mismatches, read_state_dict

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
CLASSIC_TAG = "tv_in1k"


def load_timm(spec: Spec, *, weights: Path | None, offline: bool) -> Loaded:
    """A timm architecture with the weights of its tag, of a local file, or random ones.

    A bare name means timm's default tag. A local file says nothing about its training: a bare name then takes the
    preprocessing of torchvision's recipe (tag tv_in1k) where timm has that tag, and timm's default where not. Inputs
    have the size of the tag's `input_size`, the one that the universal-perturbation papers use, not `test_input_size`.
    Raises UsageError for an unknown tag or model argument, UapgenError for weights that are missing or do not fit.
    """
    cfg = pretrained_cfg(spec.name, spec.tag, prefer=CLASSIC_TAG if weights else "")
    tagged = f"timm/{spec.name}.{cfg.tag}" if cfg.tag else f"timm/{spec.name}"
    if weights:
        module = _load_file(spec, tagged, weights)
    elif spec.random:
        module = _create(tagged, spec.model)
    else:
        cached = cached_file(cfg)
        if not cached:
            need_network(tagged, None if cfg.hf_hub_id else cfg.url, offline=offline)
        module = _published(tagged, spec.model, cached)
    _check_classifier(module, tagged, pretrained=not (weights or spec.random))
    preprocessing = timm_preprocessing(module, tagged, spec.model.get("img_size"))
    if weights:
        return Loaded(module, spec.title, "file", preprocessing, source=weights.name)
    if spec.random:
        return Loaded(module, spec.title + ":random", "random", preprocessing, source="seed 0")
    return Loaded(module, tagged, "pretrained", preprocessing, cfg.license, cfg.hf_hub_id or cfg.url)


def load_repository(spec: Spec, *, offline: bool) -> Loaded:
    """`hf-hub:ORG/NAME[@REVISION]` and `local-dir:DIR`: a config.json with weights beside it, as timm saves them.

    Folders and cached repositories may be transformers' too.
    """
    full, cached = f"{spec.kind}:{spec.name}", None
    if spec.kind == "hf-hub":
        cached = hub_cached(spec.name, ["config.json"]) and hub_cached(spec.name, HUB_FILES)
        if not cached:
            need_network(full, None, offline=offline)
    elif not Path(spec.name, "config.json").is_file():
        raise UsageError(
            f"{full}: no config.json in {spec.name}; expected a folder that timm or transformers saved a model to"
        )
    name = full if spec.kind == "hf-hub" else f"local-dir:{Path(spec.name).resolve().name}"
    folder = cached.parent if cached else Path(spec.name)
    if (cached or spec.kind == "local-dir") and not saved_by_timm(folder):
        return load_transformers(folder, name)
    module = _published(full, {}, cached)
    _check_classifier(module, full, pretrained=True)
    config: Any = module.pretrained_cfg
    return Loaded(module, name, "pretrained", timm_preprocessing(module, name), config.get("license"), spec.name)


def pretrained_cfg(arch: str, tag: str, prefer: str = "") -> Any:
    """timm's configuration of `arch.tag`; without a tag that of `prefer` where timm has it, else of the default tag."""
    import timm

    tags = [name.partition(".")[2] for name in timm.list_models(f"{arch}.*", pretrained=True)]
    tag = tag or (prefer if prefer in tags else "")
    try:
        cfg = timm.get_pretrained_cfg(f"{arch}.{tag}" if tag else arch)
    except RuntimeError as error:
        hint = did_you_mean(tag, tags) or f"; timm has {', '.join(tags) or 'no tag of it'}"
        raise UsageError(f"timm/{arch} has no weights tagged {tag!r}{hint}") from error
    return cfg or timm.models.PretrainedCfg(architecture=arch)


def cached_file(cfg: Any) -> Path | None:
    """The published weights that timm would load, when they are on this machine."""
    if cfg.hf_hub_id:
        return hub_cached(cfg.hf_hub_id, [cfg.hf_hub_filename] if cfg.hf_hub_filename else HUB_FILES)
    path = torch_cache(cfg.url) if cfg.url else None
    return path if path and path.is_file() else None


def timm_preprocessing(module: nn.Module, origin: str, img_size: int | None = None) -> Preprocessing:
    """What timm's evaluation would do for this model, at the size it was trained with."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module, {"img_size": img_size} if img_size else None)
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, (list, tuple)) else v for key, v in config.items()}
    return Preprocessing(**values, origin=origin)


def _create(name: str, arguments: dict[str, Any], **more: Any) -> nn.Module:
    import timm

    try:
        with seeded_init():
            module: nn.Module = timm.create_model(name.removeprefix("timm/"), **arguments, **more)
    except TypeError as error:
        raise UsageError(f"{name} does not take {arguments}: {error}") from error
    except Exception as error:  # files, shapes, and a hub client whose transport errors share no base class
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UapgenError(f"timm could not load {name}: {reason}; check the name, or give --weights FILE") from error
    return module


def _published(name: str, arguments: dict[str, Any], cached: Path | None) -> nn.Module:
    try:
        with hub_offline(active=cached is not None):
            return _create(name, arguments, pretrained=True)
    except UapgenError:
        if cached:
            read_state_dict(cached)  # says which file, and what is wrong with it
        raise


def _load_file(spec: Spec, tagged: str, path: Path) -> nn.Module:
    state = read_state_dict(path)
    module = _create(tagged, spec.model)
    if mismatches(module, state):
        # Published files may use names from before timm's own conversion, which its loader applies, strictly.
        overlay = {"state_dict": dict(state), "num_classes": module.num_classes}
        try:
            return _create(tagged, spec.model, pretrained=True, pretrained_cfg_overlay=overlay)
        except UapgenError:
            return load_state(module, state, path.name, spec.title)
    return load_state(module, state, path.name, spec.title)


def _check_classifier(module: nn.Module, name: str, *, pretrained: bool) -> None:
    classes, config = getattr(module, "num_classes", None), getattr(module, "pretrained_cfg", None) or {}
    if classes == 0:
        raise UapgenError(
            f"{name} is a feature extractor without classes; choose a tag of a classifier, such as ..._in1k"
        )
    if pretrained and classes != config.get("num_classes"):
        raise UapgenError(
            f"{name} was published for {config.get('num_classes')} classes and asked for {classes}: "
            "its classifier would be random; give --weights FILE"
        )
