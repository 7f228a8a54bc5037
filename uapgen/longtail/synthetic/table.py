"""The rows of a plan as Markdown: means and standard deviations over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...tables import markdown_table, spread
from .ensemble import UNCONDITIONED
from .plan import ClassifierCell, SyntheticPlan, parse_tricks, sources
from .run import REAL

NOTES = """\
Accuracy in per cent on the real test images; ± is the sample standard deviation over seeds. *Last*: after the last
epoch, the result. *Best*: of the best epoch, chosen on the test images themselves, as in the published table; it
flatters. All classifiers have the same network, recipe and number of images; the real one has fresh crops and flips in
every epoch. In fixed sets, crops and flips are frozen with the images. The filter is the real classifier of the same
seed. MS-SSIM: mean over pairs of one class, lower is more varied; at so small a size it has fewer scales than five
({scales} here), so that absolute values are not those of other papers. Frechet-annotator: distance to the test images
in the features of that seed's real classifier, which is not an FID, and whose scale differs between seeds. Label
agreed: how often the real classifier says the condition; passes: with the filter's probability too. Sources are seen
before transformations and filter. Nothing of the test images reaches training; the best epoch alone is chosen on
them."""

Rows = Sequence[dict[str, Any]]


def render(plan: SyntheticPlan, rows: Rows) -> str:
    """Tables of the grid, the ensembles, the sources and the perturbations, as far as there are rows for them."""
    scales = next((row["ms_ssim_scales"] for row in rows if row["kind"] == "source"), "fewer")
    seeds = ", ".join(map(str, plan.seeds))
    parts = [
        f"# Classifiers trained on generated images: {plan.data}, seeds {seeds}",
        f"Trained on real data: {_both(rows, REAL)}.",
        _grid(plan, rows),
        _ensembles(plan, rows),
        _sources(plan, rows),
        *_perturbed(plan, rows),
        NOTES.format(scales=scales),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(plan: SyntheticPlan, rows: Rows) -> str:
    if not plan.grid.modes or not plan.grid.tricks:
        return ""
    body = []
    for mode in plan.grid.modes:
        cells = [ClassifierCell(mode, parse_tricks(text)).name for text in plan.grid.tricks]
        body.append([f"{mode}, last", *(_accuracy(rows, name, "last_accuracy") for name in cells)])
        body.append([f"{mode}, best", *(_accuracy(rows, name, "best_accuracy") for name in cells)])
    terms = f"filter p >= {plan.grid.threshold:g}, truncation at {plan.grid.psi:g}, crops out of {plan.grid.pad} pixels"
    return f"## One generator ({terms})\n\n" + markdown_table(["", *plan.grid.tricks], body, left=1)


def _ensembles(plan: SyntheticPlan, rows: Rows) -> str:
    settings = plan.ensembles
    if not settings.sizes or not settings.methods:
        return ""
    tricks = parse_tricks(settings.tricks)
    lines: list[tuple[int, tuple[float, ...] | None]] = []
    for size in settings.sizes:
        lines += [(size, None), *((size, shares) for shares in settings.shares if len(shares) == size and size > 1)]
    body = []
    for size, shares in lines:
        of = f", {'/'.join(f'{share:g}' for share in shares)}" if shares else ""
        names = []
        for method in settings.methods:
            alone = method == UNCONDITIONED
            missing = (size == 1 and not alone) or (shares is not None and alone)
            names.append(None if missing else ClassifierCell("on-the-fly", tricks, size, method, shares).name)
        for kind in ("last", "best"):
            body.append([f"{size}{of}, {kind}", *(_accuracy(rows, name, f"{kind}_accuracy") for name in names)])
    title = f"## Ensembles, on the fly with {settings.tricks}\n\n"
    return title + markdown_table(["generators", *settings.methods], body, left=1)


def _sources(plan: SyntheticPlan, rows: Rows) -> str:
    columns: dict[str, Callable[[dict[str, Any]], float]] = {
        "MS-SSIM (x100)": lambda row: 100 * row["ms_ssim"],
        "Frechet-annotator": lambda row: row["frechet_annotator"],
        "label agreed": lambda row: 100 * row["annotator_accuracy"],
        "passes": lambda row: 100 * row["passes_filter"],
    }
    names = [REAL, *(cell.source for cell in sources(plan.cells()))]
    body = [[name, *(spread(pick(rows, "source", name, value), 2) for value in columns.values())] for name in names]
    return "## Sources\n\n" + markdown_table(["source", *columns], body, left=1)


def _perturbed(plan: SyntheticPlan, rows: Rows) -> list[str]:
    parts = []
    for key in dict.fromkeys(row["uap"] for row in rows if row["kind"] == "uap"):
        mine = [row for row in rows if row.get("uap") == key]
        first = mine[0]
        size = f"{first['norm']} {255 * first['eps']:.4g}/255{', resized' if first['resized'] else ''}"
        columns: dict[str, Callable[[dict[str, Any]], float]] = {
            "clean accuracy": lambda row: 100 * row["clean_accuracy"],
            "accuracy under it": lambda row: 100 * row["adversarial_accuracy"]["rate"],
            "fooling rate": lambda row: 100 * row["fooling_rate"]["rate"],
            "floor": lambda row: 100 * row["floor"]["rate"],
        }
        names = [REAL, *(cell.name for cell in plan.cells())]
        body = [[name, *(spread(pick(mine, "uap", name, value), 1) for value in columns.values())] for name in names]
        title = f"## Under {first['method']} ({size}, {key[:12]})\n\n"
        parts.append(title + markdown_table(["trained on", *columns], body, left=1))
    return parts


def pick(rows: Rows, kind: str, name: str, value: Callable[[dict[str, Any]], float]) -> list[float]:
    """One number a seed."""
    return [value(row) for row in rows if row["kind"] == kind and row["name"] == name]


def _accuracy(rows: Rows, name: str | None, key: str) -> str:
    return "-" if name is None else spread(pick(rows, "classifier", name, lambda row: 100 * row[key]), 1)


def _both(rows: Rows, name: str) -> str:
    return f"{_accuracy(rows, name, 'last_accuracy')} last, {_accuracy(rows, name, 'best_accuracy')} best"
