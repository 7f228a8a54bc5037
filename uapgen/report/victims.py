"""The sections that reports of evaluations and of comparisons share: the victims, and what to know before believing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..evaluation.comparison import ComparedVictim
from ..evaluation.document import VictimEntry
from .page import Section, Table, cells, rate_text


def victims_section(victims: Iterable[VictimEntry | ComparedVictim]) -> Section:
    """What was attacked, a row for each victim."""
    head = ("victim", "weights", "sha256", "preprocessing", "classes", "input", "clean accuracy %", "images")
    rows = [
        cells(
            about.name,
            " ".join(part for part in (about.weights, about.weights_source) if part),
            about.weights_sha256[:12],
            f"{about.interpolation}, crop {about.crop_pct:g}, mean {_numbers(about.mean)}, std {_numbers(about.std)}",
            about.num_classes,
            "×".join(str(n) for n in about.input_size[1:]),
            rate_text(victim.clean_accuracy),
            victim.n,
        )
        for victim, about in ((victim, victim.about) for victim in victims)
    ]
    text = "Frozen classifiers: pixels in [0, 1] go in, logits come out, and normalisation is the victim's own."
    return Section("What was attacked", [text], tables=[Table("Victims", head, rows, left=4)])


def _numbers(values: Sequence[float]) -> str:
    distinct = values[:1] if len(set(values)) == 1 else values
    return "/".join(f"{value:.3g}" for value in distinct)


def honesty(
    facts: list[tuple[str, str]], *, complete: bool, warnings: Iterable[str], quantized: bool, n: Iterable[int]
) -> Section:
    """How far the numbers carry: which images, what was rounded, what is missing, all warnings."""
    counts = " or ".join(str(count) for count in sorted(set(n)))
    rounding = "yes: a saved image fools as these do" if quantized else "no: these images were never saved"
    section = Section("How honest the numbers are")
    section.facts = [
        *facts,
        ("Images measured", counts),
        ("Rounded to 8 bits", rounding),
        ("Run", "complete" if complete else "not complete: some victims or methods are missing"),
    ]
    section.text = [
        "The fooling rate is the share of all images whose top-1 class under the pattern differs from the victim's "
        "own clean prediction. Brackets are Wilson's 95% intervals for the draw of images; they know nothing of seeds "
        "or of other data. The floor is the fooling rate of one random sign pattern of the same bound: a pattern is "
        "worth what it adds to that."
    ]
    section.notes = list(warnings) or ["No warning was raised."]
    return section
