"""The rows of a plan as Markdown (means, standard deviations over seeds), and t-SNE pictures of features and weights.

van der Maaten and Hinton, "Visualizing data using t-SNE", 2008, as scikit-learn has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...runtime import atomic_write
from ...tables import markdown_table, spread
from ..data import LabelledImages
from ..metrics import annotator_features
from .ensemble import METHODS, UNCONDITIONED, missed
from .plan import ClassifierCell, SyntheticPlan, parse_tricks, sources
from .run import REAL, SeedWork, seed_folder

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


if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def draw_figures(plan: SyntheticPlan, out: Path, *, device: str, precision: str) -> list[Path]:
    """features.png and weights.png in `out`, of the plan's first seed; what they show is trained where it is missing.

    weights.png: the weightings of the plan's ensembles, else all four.
    """
    work = SeedWork(plan, plan.seeds[0], seed_folder(out, plan.seeds[0]), device, precision)
    classes = list(range(min(plan.samples.figure_classes, work.data.num_classes)))
    seen = {"real (test)": work.test}
    for label, tricks in (("generated", ()), (f"generated, psi {plan.grid.psi:g}", ("truncation",))):
        source = work.source(ClassifierCell("fixed", tricks))
        wanted = plan.samples.figure * work.data.num_classes
        seen[label] = source.dataset(wanted, batch=125, seed=work.seed + 2, name=label)
    shown = {name: _first_of_each(images, classes, plan.samples.figure) for name, images in seen.items()}
    values = {name: annotator_features(work.annotator, part.images).values for name, part in shown.items()}
    draw_features(values, {name: part.labels.cpu() for name, part in shown.items()}, out / "features.png")

    members = work.members(ClassifierCell("fixed", ()))
    methods = [method for method in METHODS if method in plan.ensembles.methods] or list(METHODS)
    weights = {method: missed(work.data, members, work.annotator, method, work.seed) for method in methods}
    mine = (work.data.labels == classes[-1]).nonzero().flatten().cpu()[: 4 * plan.samples.figure]
    features = annotator_features(work.annotator, work.data.images[mine]).values
    title = f"Real images of class {classes[-1]}: probability of being drawn for the next GAN"
    draw_weights(features, {name: w[mine] for name, w in weights.items()}, out / "weights.png", title=title)
    return [out / "features.png", out / "weights.png"]


def embed(features: Tensor, seed: int = 0) -> np.ndarray:
    """t-SNE of features (N,F) -> (N,2), started from their principal components; perplexity 30, or N/4 for few."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(len(features) / 4, 1.0))
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(features.double().numpy())


def draw_features(features: Mapping[str, Tensor], labels: Mapping[str, Tensor], path: Path) -> None:
    """One embedding of all features together, a panel for each source, the others in grey behind it.

    features: name -> (N,F); labels: name -> (N,).
    """
    places = np.split(embed(torch.cat(list(features.values()))), np.cumsum([len(v) for v in features.values()])[:-1])
    figure = _figure(len(features))
    classes = sorted({int(label) for row in labels.values() for label in row})
    for axes, (name, own) in zip(_panels(figure, len(features)), zip(features, places, strict=True), strict=True):
        for other in places:
            axes.scatter(*other.T, s=3, color="#E2E2E2", linewidths=0)
        for k in classes:
            axes.scatter(*own[(labels[name] == k).numpy()].T, s=5, linewidths=0, label=str(k), color=f"C{k % 10}")
        axes.set_title(f"{name}, n = {len(own)}", fontsize=9, loc="left")
    handles, names = figure.axes[0].get_legend_handles_labels()
    words = {"title": "class", "title_fontsize": 8, "fontsize": 8, "frameon": False}
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), **words)
    _save(figure, path)


def draw_weights(features: Tensor, weights: Mapping[str, Tensor], path: Path, *, title: str) -> None:
    """Features (N,F) of one class, coloured by each weighting (N,) in parts of its largest; crosses are never drawn."""
    place = embed(features)
    figure = _figure(len(weights))
    for axes, (name, row) in zip(_panels(figure, len(weights)), weights.items(), strict=True):
        share, out = (row / row.max().clamp_min(1e-300)).numpy(), (row == 0).numpy()
        axes.scatter(*place[out].T, s=9, marker="x", color="#AAAAAA", linewidths=0.6)
        dots = axes.scatter(*place[~out].T, s=9, c=share[~out], cmap="viridis", vmin=0, vmax=1, linewidths=0)
        axes.set_title(f"{name}: {int(out.sum())} of {len(row)} never drawn", fontsize=9, loc="left")
    figure.colorbar(dots, ax=figure.axes, shrink=0.8, label="weight / largest")
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    _save(figure, path)


def _first_of_each(images: LabelledImages, classes: Sequence[int], n: int) -> LabelledImages:
    return images.subset(torch.cat([(images.labels == k).nonzero().flatten()[:n] for k in classes]))


def _figure(panels: int) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(3.1 * panels + 0.6, 3.6), layout="constrained", facecolor="white")


def _panels(figure: Figure, n: int) -> list[Any]:
    panels = list(figure.subplots(1, n, sharex=True, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
    return panels


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
