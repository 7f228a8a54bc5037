"""The per-class histogram as a figure: what each generator makes, beside what it was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ...errors import UsageError
from ...runtime import atomic_write
from .class_kl import kl_to_uniform


def draw_histogram(
    counts: Mapping[str, Tensor], path: str | Path, *, class_names: Sequence[str] | None = None, dpi: int = 150
) -> None:
    """Shares in per cent of each class as one panel a row, with its KL to uniform; written as PNG, atomically.

    counts: name -> (K,) counts, all of the same K. The dashed line is the even share.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = {len(row) for row in counts.values()}
    if len(sizes) != 1:
        raise UsageError(f"histograms of {sorted(sizes)} classes cannot share a figure; expected one number of classes")
    k = sizes.pop()
    figure = Figure(figsize=(max(4.0, min(12.0, 0.35 * k + 2)), 1.3 * len(counts) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(counts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, row) in zip(panels, counts.items(), strict=True):
        axes.bar(range(k), (100 * row.double() / row.sum()).tolist(), width=1.0 if k > 40 else 0.8, color="#4878a8")
        axes.axhline(100 / k, color="#222222", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_title(f"{name}: KL {kl_to_uniform(row):.3f} nats, n = {int(row.sum())}", fontsize=9, loc="left")
        axes.set_ylabel("%", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    if class_names is not None and k <= 40:
        panels[-1].set_xticks(range(k), list(class_names), rotation=45, ha="right")
    panels[-1].set_xlabel("class", fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
