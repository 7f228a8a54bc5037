"""How a victim is named (`timm/NAME.TAG`, `tv/NAME`, `embedded/NAME`, `file:PATH`, `module:function`, ...), what a
loader hands over, and how preprocessing is put together.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UsageError, did_you_mean
from .victim import Preprocessing

EMBEDDED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
FORMS = (
    "timm/NAME, tv/NAME, embedded/NAME, file:PATH with --arch NAME, file:NET.onnx, module:function, hf-hub:ORG/NAME, "
    "local-dir:DIR"
)


@dataclass(frozen=True)
class Spec:
    """A victim's name, taken apart.

    `kind` is timm, tv, embedded, file, graph, python, hf-hub or local-dir. After a colon, timm and tv names take
    options with commas between: `random`, preprocessing (`mean=0.5`, `input_size=288`), and arguments of the model
    itself (`pad_type=same`, `num_classes=10`): `timm/mobilenetv2_100:pad_type=same,mean=0.5,std=0.5`. Of these, graph
    takes preprocessing only.
    """

    kind: str
    name: str
    tag: str = ""
    random: bool = False
    preprocessing: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Without the tag: what a victim with other weights than the tag's may be called."""
        options = ",".join(f"{key}={value}" for key, value in self.model.items())
        return f"{self.kind}/{self.name}" + (f":{options}" if options else "")


def parse(text: str) -> Spec:
    """Raises UsageError, with near names, for a victim that nobody has."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("file", "hf-hub", "local-dir"):
        if not rest:
            raise UsageError(f"victim {text!r} names nothing after {scheme}:; expected {FORMS}")
        graph = re.fullmatch(r"(.*(?:\.onnx|\.pt2|\.torchscript))(?::(.*))?", rest)
        if scheme == "file" and graph:
            options = _options(graph[2] or "", text)
            if options["random"] or options["model"]:
                raise UsageError(
                    f"victim {text!r}: a program takes preprocessing only, such as mean=0.5,input_size=224"
                )
            return Spec("graph", graph[1], **options)
        return Spec(scheme, rest)
    kind, slash, name = scheme.partition("/")
    if kind == "embedded" and slash:
        if name not in EMBEDDED or colon:
            raise _unknown(text)
        return Spec(kind, name)
    if slash and kind not in ("timm", "tv"):
        raise _unknown(text)
    kind, name = (kind, name) if slash else ("", scheme)
    arch, _, tag = name.partition(".")
    for candidate in [kind] if kind else ["timm", "tv"]:
        if has_architecture(candidate, arch):
            return Spec(candidate, arch, tag, **_options(rest, text))
    if colon and not slash and all(part.isidentifier() for part in [*scheme.split("."), rest]) and rest != "random":
        return Spec("python", text)
    raise _unknown(text)


def split_specs(text: str) -> list[str]:
    """`A,B:mean=0.5,std=0.5,C`: the victims between the commas; what is an option stays with its victim."""
    found: list[str] = []
    for part in text.split(","):
        if found and ("=" in part or part == "random"):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def has_architecture(kind: str, arch: str) -> bool:
    if kind == "timm":
        import timm

        return bool(timm.is_model(arch))
    return arch in vision_names()


def vision_names() -> list[str]:
    """torchvision's classifiers."""
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def known_names() -> list[str]:
    """Every name that needs no file: embedded, timm, torchvision."""
    import timm

    timm_names = [f"timm/{name}" for name in [*timm.list_models(), *timm.list_models(pretrained=True)]]
    return [*(f"embedded/{name}" for name in EMBEDDED), *timm_names, *(f"tv/{name}" for name in vision_names())]


def _options(text: str, spec: str) -> dict[str, Any]:
    random, preprocessing, model = False, {}, {}
    for word in filter(None, text.split(",")):
        key, equals, value = word.partition("=")
        if word == "random":
            random = True
        elif not equals or not key.isidentifier():
            raise UsageError(f"option {word!r} of victim {spec!r} is not known; expected 'random' or KEY=VALUE")
        elif key in FIELDS:
            numbers = [_value(part) for part in value.split("/")]
            preprocessing[key] = numbers if len(numbers) > 1 else numbers[0]
        else:
            model[key] = _value(value)
    return {"random": random, "preprocessing": preprocessing, "model": model}


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _unknown(text: str) -> UsageError:
    if Path(text).is_file():
        return UsageError(f"victim {text!r} is a file; say --victim file:{text}, and --arch NAME for plain weights")
    if Path(text, "config.json").is_file():
        return UsageError(f"victim {text!r} is a folder; say --victim local-dir:{text}")
    bare = text.partition(":")[0]
    names = known_names()
    if bare.startswith("embedded/"):
        return UsageError(f"no victim {text!r}; expected embedded/ with one of {', '.join(EMBEDDED)}, and no options")
    hint = did_you_mean(bare, names if "/" in bare else {name.partition("/")[2] for name in names})
    return UsageError(f"no victim {text!r}{hint or f'; expected {FORMS}'} (see 'uapgen victims list')")


FIELDS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Loaded:
    """A classifier with its weights in, ready to be wrapped; `source` says in words where the weights came from."""

    module: nn.Module
    name: str
    weights: str
    preprocessing: Preprocessing
    licence: str | None = None
    source: str | None = None


@contextmanager
def seeded_init() -> Iterator[None]:
    """Modules built inside draw their first weights from seed 0; the caller's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def adjusted(base: Preprocessing, changes: Mapping[str, Any], origin: str) -> Preprocessing:
    """`base` with some fields replaced; `origin` names who asked for it.

    `mean` and `std` take one number or three; `input_size` takes a side, (H,W) or (3,H,W).
    Raises UsageError for fields or values that make no sense.
    """
    if not changes:
        return base
    try:
        values = {name: _field(name, value) for name, value in changes.items()}
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f"preprocessing from {origin} is not usable: {error}; {_EXPECTED}") from error
    return dataclasses.replace(base, **values, origin=f"{base.origin}, {'/'.join(values)} from {origin}")


_EXPECTED = "expected e.g. mean=0.5, std=0.229/0.224/0.225, input_size=224, crop_pct=0.875, interpolation=bilinear"


def _field(name: str, value: Any) -> Any:
    if name in ("mean", "std"):
        numbers = tuple(float(v) for v in value) if isinstance(value, (list, tuple)) else (float(value),) * 3
        if len(numbers) != 3 or not all(-10 < v < 10 for v in numbers) or (name == "std" and min(numbers) <= 0):
            raise ValueError(f"{name}={value!r}")
        return numbers
    if name == "input_size":
        sides = [int(v) for v in value][-2:] if isinstance(value, (list, tuple)) else [int(value)] * 2
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"{name}={value!r}")
        return (3, *sides)
    if name == "crop_pct":
        if not 0 < float(value) <= 1:
            raise ValueError(f"{name}={value!r}")
        return float(value)
    allowed = {"interpolation": INTERPOLATIONS, "crop_mode": CROP_MODES}[name]
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is none of {', '.join(allowed)}")
    return value
