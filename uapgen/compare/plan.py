"""What a comparison crafts and measures: method specs, seeds, other people's files, and the tasks that follow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..attacks import find_method, methods
from ..errors import UsageError
from ..perturbation import Perturbation
from ..perturbation.exchange import CHANNELS, LAYOUTS, UNITS, import_perturbation
from ..proxies import parse_source
from .store import file_name

OF_CRAFT = ("target", "tile")  # parameters that every method takes: they are craft()'s own
TRAIN = "train"  # as a source: the training data, also for methods that could do without images
DATA_FREE = "procedural"  # what `all` gives to methods that need images where there is no training data


@dataclass(frozen=True)
class MethodSpec:
    """`NAME[@SOURCE][+KEY=VALUE]...`; `params` in the order of their names, as text."""

    name: str
    source: str | None = None
    params: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """One text per spec: what a row is called, and a part of its files' names."""
        return self.name + (f"@{self.source}" if self.source else "") + "".join(f"+{k}={v}" for k, v in self.params)

    @property
    def learns(self) -> bool:
        """Whether it takes the training data: asked for, or the method needs images and none were named."""
        return self.source == TRAIN or (self.source is None and find_method(self.name).images == "driven")

    def arguments(self, seed: int) -> dict[str, Any]:
        """Keyword arguments for `craft`.

        A parameter called ..._seed (cbgan's GAN has one) follows `seed` unless the spec sets it: the spread over seeds
        has to hold all of the method's chance.
        """
        method = find_method(self.name)
        seeds = {key: seed for key in method.parameters() if key.endswith("_seed")}
        given = {key: value for key, value in self.params if key not in OF_CRAFT}
        own = {key: value for key, value in method.check(given).items() if key in given}
        return {**seeds, **own, **{key: int(value) for key, value in self.params if key in OF_CRAFT}}


def parse_methods(text: str | Iterable[str], *, train_data: bool = False, norm: str = "linf") -> list[MethodSpec]:
    """The specs in `text`, commas between, each once; `all` is every registered method that is defined for `norm`.

    `NAME@SOURCE` crafts on proxy images (`sga@procedural`, `cosine-uap@folder:DIR`) instead of the training data,
    `NAME@train` gives that to a method that could do without, and `+KEY=VALUE` sets a parameter of the method, or
    `target` or `tile`. In `all`, methods that need images take the training data, or `procedural` images where there
    is none.
    Raises UsageError for what cannot be run; the images of a folder are listed, nothing else is read.
    """
    words = text.split(",") if isinstance(text, str) else text
    specs: list[MethodSpec] = []
    for word in filter(None, (word.strip() for word in words)):
        specs += _everything(train_data, norm) if word == "all" else [parse_method(word)]
    if not specs:
        raise UsageError("no method was given; expected names with commas between, or all (see 'uapgen methods list')")
    specs = list(dict.fromkeys(specs))
    for spec in specs:
        if norm not in find_method(spec.name).norms:
            raise UsageError(f"{spec.name} is not defined for norm {norm}; leave it out, or write all")
    hungry = [spec.label for spec in specs if spec.learns]
    if hungry and not train_data:
        raise UsageError(
            f"{', '.join(hungry)}: learning from images, but there are none; give --train-data DIR, or name a source "
            f"that needs no data ({hungry[0].partition('+')[0]}@{DATA_FREE}), or leave them out"
        )
    return specs


def parse_method(text: str) -> MethodSpec:
    """One spec; raises UsageError, with near names, for a method, source or parameter that is not known."""
    head, *pairs = re.split(r"\+(?=[A-Za-z][\w-]*=)", text)
    name, at, source = head.partition("@")
    if "+" in name:
        raise UsageError(f"method {text!r}: {'+' + name.partition('+')[2]!r} is not +KEY=VALUE")
    method = find_method(name)
    if at and source != TRAIN:
        parse_source(source, 64)  # its own errors say what there is
    params = {key.replace("-", "_"): value for key, _, value in (pair.partition("=") for pair in pairs)}
    if len(params) < len(pairs):
        raise UsageError(f"method {text!r} sets a parameter twice")
    for key, value in params.items():
        if not value:
            raise UsageError(f"method {text!r}: +{key}= has no value")
        if key in OF_CRAFT and not value.isdigit():
            raise UsageError(f"method {text!r}: {key}={value} is not a whole number")
    method.check({key: value for key, value in params.items() if key not in OF_CRAFT})
    return MethodSpec(name, source or None, tuple(sorted(params.items())))


def _everything(train_data: bool, norm: str) -> list[MethodSpec]:
    able = [method for method in methods().values() if norm in method.norms]
    return [MethodSpec(m.name, DATA_FREE if m.images == "driven" and not train_data else None) for m in able]


def parse_seeds(text: str) -> list[int]:
    """`0..2`, `0,1,2`, `0,5..7`: whole numbers from 0 on, each once. Raises UsageError for anything else."""
    seeds: list[int] = []
    for word in text.split(","):
        first, dots, last = word.strip().partition("..")
        if not (first.isdigit() and (last.isdigit() if dots else True)) or (dots and int(last) < int(first)):
            raise UsageError(f"seeds {text!r}: {word!r} is neither a seed nor FIRST..LAST; expected 0,1,2 or 0..2")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def select(specs: Sequence[MethodSpec], words: Iterable[str]) -> list[MethodSpec]:
    """Those of `specs` that `words` name: a whole spec, or a method's name for all of its specs."""
    chosen: list[MethodSpec] = []
    for word in (word.strip() for word in words):
        whole = [spec for spec in specs if spec.label == word]
        found = whole or [spec for spec in specs if spec.name == word]
        if not found:
            known = ", ".join(spec.label for spec in specs)
            raise UsageError(f"seeds for {word!r}: no such method in this comparison; expected some of {known}")
        chosen += found
    return list(dict.fromkeys(chosen))


@dataclass(frozen=True)
class ImportSpec:
    """Somebody's perturbation file. Without unit and layout it is one of our own, or a .png that `export` wrote."""

    file: str
    unit: str = ""
    layout: str = ""
    channels: str = "RGB"

    @property
    def label(self) -> str:
        return Path(self.file).name

    def load(self, eps: float, norm: str) -> Perturbation:
        """Raises UapgenError for a file that is not what the spec says, or was made for another bound."""
        if self.unit or Path(self.file).suffix.lower() == ".png":
            unit, layout = self.unit or "0..255", self.layout or "HWC"
            return import_perturbation(self.file, unit=unit, layout=layout, channels=self.channels, eps=eps, norm=norm)
        uap = Perturbation.load(self.file)
        if (uap.norm, round(uap.eps, 6)) != (norm, round(eps, 6)):
            made, here = f"{uap.norm} {uap.eps * 255:.4g}/255", f"{norm} {eps * 255:.4g}/255"
            raise UsageError(f"{self.file} was made for {made}, and this comparison is at {here}")
        return uap


def parse_import(text: str) -> ImportSpec:
    """`FILE:UNIT:LAYOUT[:BGR]`, or FILE alone for uapgen's own files and .png. Raises UsageError for anything else."""
    words = text.split(":")
    channels = words.pop() if len(words) > 3 and words[-1] in CHANNELS else "RGB"
    if len(words) > 2 and words[-1] in LAYOUTS and words[-2] in UNITS:
        return ImportSpec(":".join(words[:-2]), words[-2], words[-1], channels)
    if Path(text).suffix.lower() in (".safetensors", ".png"):
        return ImportSpec(text)
    raise UsageError(
        f"import {text!r} does not say how the file is stored; expected FILE:UNIT:LAYOUT with unit "
        f"{' or '.join(UNITS)} and layout {' or '.join(LAYOUTS)}, and :BGR where blue comes first"
    )


@dataclass(frozen=True)
class Task:
    """One perturbation: a method on a victim with a seed, or (victim and seed None) somebody's file."""

    spec: MethodSpec | ImportSpec
    victim: str | None = None
    seed: int | None = None

    @property
    def key(self) -> str:
        """Its name in the comparison's folder."""
        if isinstance(self.spec, ImportSpec):
            return file_name("import", self.spec.label)
        return file_name(self.victim, self.spec.label, self.seed)

    @property
    def title(self) -> str:
        return self.spec.label if self.victim is None else f"{self.spec.label}, seed {self.seed}, {self.victim}"


def list_tasks(
    victims: Sequence[str],
    specs: Sequence[MethodSpec],
    seeds: Sequence[int],
    repeated: Sequence[MethodSpec],
    imports: Sequence[ImportSpec],
) -> list[Task]:
    """Imports, then every method with the first seed, then the other seeds: of `repeated` if any, else of all.

    Raises UsageError for two imports of one file name.
    """
    labels = [spec.label for spec in imports]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"two imported files are called {label}; rename one, for the table's sake")
    first, *others = seeds
    tasks = [Task(spec) for spec in imports]
    tasks += [Task(spec, victim, first) for victim in victims for spec in specs]
    again = repeated or specs
    return tasks + [Task(spec, victim, seed) for seed in others for victim in victims for spec in again]
