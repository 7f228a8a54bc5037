"""A benchmark as a table, JSON and figures: mean and standard deviation over seeds for each method and imbalance."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...runtime import atomic_write
from ...tables import markdown_table, spread
from ..metrics import draw_histogram
from .plan import BenchPlan

COLUMNS = {  # figure -> heading, decimals
    "kl": ("KL (nats)", 3),
    "Frechet-annotator": ("Fréchet, annotator", 2),
    "Frechet-annotator/minority": ("minority", 2),
    "FID": ("FID", 1),
    "FID-768": ("FID-768", 3),
    "FID-768/minority": ("minority", 3),
    "precision-annotator": ("precision", 3),
    "recall-annotator": ("recall", 3),
    "MS-SSIM": ("MS-SSIM", 3),
    "label agreement": ("label agreement", 3),
    "CAS": ("CAS", 3),
}


def summarise(plan: BenchPlan, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each imbalance and method: values over seeds by figure; a missing value (None) makes its row's None."""
    rows = []
    for imbalance in plan.imbalances:
        for method in plan.methods:
            found = [line for line in lines if (line["imbalance"], line["method"]) == (imbalance, method)]
            good = [line for line in found if "error" not in line]
            names = [name for name in COLUMNS if any(name in line["scores"] for line in good)]
            rows.append(
                {
                    "imbalance": imbalance,
                    "method": method,
                    "seeds": [line["seed"] for line in good],
                    "failed": [{"seed": line["seed"], "error": line["error"]} for line in found if "error" in line],
                    "figures": {
                        name: _moments([line["scores"][name]["value"] for line in good if name in line["scores"]])
                        for name in names
                    },
                    "seconds": round(statistics.fmean(line["seconds"] for line in good), 1) if good else None,
                }
            )
    return rows


def _moments(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    whole = len(known) == len(values) and known
    return {
        "values": list(values),
        "mean": statistics.fmean(known) if whole else None,
        "std": statistics.stdev(known) if whole and len(known) > 1 else None,
    }


def render(plan: BenchPlan, lines: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown, with what was measured on what."""
    rows = summarise(plan, lines)
    names = [name for name in COLUMNS if any(name in row["figures"] for row in rows)]
    head = ["imbalance", "method", *(COLUMNS[name][0] for name in names), "seeds", "seconds"]
    body = [
        [
            f"{row['imbalance']:g}",
            row["method"],
            *(_cell(row["figures"].get(name), COLUMNS[name][1]) for name in names),
            str(len(row["seeds"])) + (f" ({len(row['failed'])} failed)" if row["failed"] else ""),
            _seconds(row["seconds"]),
        ]
        for row in rows
    ]
    return f"{markdown_table(head, body, left=2)}\n\n{_about(plan, lines)}\n"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _cell(figures: dict[str, Any] | None, digits: int) -> str:
    return "-" if figures is None or figures["mean"] is None else spread(figures["values"], digits)


def _about(plan: BenchPlan, lines: Sequence[dict[str, Any]]) -> str:
    good = [line for line in lines if "error" not in line]
    if not good:
        return "No GAN is finished."
    kl = good[0]["scores"]["kl"]
    distance = good[0]["scores"]["Frechet-annotator"]
    who = f"{kl['network']}, sha256 {kl['weights_sha256'][:12]}"
    text = (
        f"{plan.data}: {plan.samples} samples a GAN against {distance['n_reference']} test images "
        f"({distance['reference']}); ± is the sample standard deviation over seeds. KL: from the classes of the "
        f"samples, as an annotator trained on balanced data sees them ({who}), to uniform; an even generator "
        f"shows {kl['floor']:.4f}. Fréchet: in the annotator's features, which is no FID; minority: the smaller half "
        "of the classes. Precision and recall: k-NN in the same features."
    )
    if "CAS" in good[0]["scores"]:
        text += f" CAS: accuracy on the real test images of {good[0]['scores']['CAS']['network']}."
    if any(line["scores"].get("Frechet-annotator/minority", {}).get("value", 0) is None for line in good):
        text += " A dash: some seed had fewer than two samples of those classes."
    return text


def write_report(plan: BenchPlan, lines: Sequence[dict[str, Any]], folder: Path) -> str:
    """Writes table.md, results.json and a histogram figure for each imbalance; returns the table."""
    table = render(plan, lines)
    for name, text in (
        ("table.md", table),
        ("results.json", json.dumps(_finite(summarise(plan, lines)), indent=1) + "\n"),
    ):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text)
    for imbalance in plan.imbalances:
        good = [line for line in lines if line["imbalance"] == imbalance and "error" not in line]
        if good:
            counts = {"training images": torch.tensor(good[0]["counts"])}
            for method in plan.methods:
                made = [line["scores"]["kl"]["histogram"] for line in good if line["method"] == method]
                if made:
                    counts[f"{method}, {len(made)} seeds"] = torch.tensor(made).sum(0)
            draw_histogram(counts, folder / f"classes-{imbalance:g}.png")
    return table


def _finite(value: Any) -> Any:
    """NaN is no JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(held) for key, held in value.items()}
    return [_finite(held) for held in value] if isinstance(value, list) else value
