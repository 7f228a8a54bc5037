"""The perturbations of a comparison: what is to be crafted, and other people's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..exchange import CHANNELS, LAYOUTS, UNITS, import_perturbation
from ..perturbation import Perturbation
from .plan import MethodSpec
from .store import file_name


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
