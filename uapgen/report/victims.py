"""The sections that reports of evaluations and of comparisons share: the victims, and what to know before believing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .page import Section, Table, cells, rate_text

DATA_CLASSES = {
    "none": "no image was seen",
    "proxy": "images unrelated to the victim's task",
    "driven": "images of the victim's domain",
    "unknown": "nobody here knows what it was crafted on",
}


def victims_section(victims: Iterable[dict[str, Any]]) -> Section:
    """`victims` are descriptions as `Victim.describe` gives them, with n and clean_accuracy."""
    head = ("victim", "weights", "sha256", "preprocessing", "classes", "input", "clean accuracy %", "images")
    rows = [
        cells(
            victim["name"],
            " ".join(str(part) for part in (victim["weights"], victim.get("weights_source")) if part),
            str(victim["weights_sha256"])[:12],
            f"{victim['interpolation']}, crop {victim['crop_pct']:g}, mean {_numbers(victim['mean'])}, "
            f"std {_numbers(victim['std'])}",
            victim["num_classes"],
            "×".join(str(n) for n in victim["input_size"][1:]),
            rate_text(victim["clean_accuracy"]),
            victim["n"],
        )
        for victim in victims
    ]
    text = "Frozen classifiers: pixels in [0, 1] go in, logits come out, and normalisation is the victim's own."
    return Section("What was attacked", [text], tables=[Table("Victims", head, rows, left=4)])


def _numbers(values: list[float]) -> str:
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
