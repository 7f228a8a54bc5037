"""t-SNE pictures: features of real and generated images (the report's figure 1), and sampling weights (its figure 2).

van der Maaten and Hinton, "Visualizing data using t-SNE", 2008, as scikit-learn has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...runtime import atomic_write
from ..data import LabelledImages
from ..metrics import annotator_features
from .ensemble import METHODS, missed
from .plan import ClassifierCell, SyntheticPlan
from .run import SeedWork, seed_folder

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
