"""How a victim is named: `timm/NAME.TAG`, `tv/NAME`, `embedded/NAME`, `file:PATH`, `module:function`, ..."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError, did_you_mean
from .config import FIELDS

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
