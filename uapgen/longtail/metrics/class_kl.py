"""How uneven generated classes are: KL from a reference distribution, and its histogram as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...errors import UsageError
from ...gan.balance import kl_to_even
from ...runtime import atomic_write

AUTHORS_SMOOTHING = 1e-5  # added to both distributions, which are not renormalised, in the authors' released code


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """How often each class occurs, (K,) int64 on the CPU, from labels (N,) int64.

    Raises UsageError for a label outside 0..K-1.
    """
    labels = labels.detach().cpu().long()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise UsageError(f"labels {found} for {num_classes} classes; expected 0..{num_classes - 1}")
    return torch.bincount(labels, minlength=num_classes)


def kl_to_uniform(counts: Tensor, smoothing: float = 0.0) -> float:
    """sum_k p_k log(p_k / u_k) in nats with p = counts / sum, u = 1/K: 0 for even counts, log K for one class only.

    counts: (K,), non-negative, not all zero. smoothing: 0 is exact (0 log 0 = 0); `AUTHORS_SMOOTHING` adds 1e-5 to p
    and to u without renormalising, as the released code does; with K = 10 the two differ by less than 2e-3.
    """
    total = float(counts.sum())
    if counts.ndim != 1 or total <= 0 or float(counts.min()) < 0:
        raise UsageError(
            f"class counts of shape {tuple(counts.shape)} sum to {total:g}; expected K counts, not all zero"
        )
    p = counts.double() / total + smoothing
    return kl_to_even(p, 1 / len(counts) + smoothing)


def sampling_floor(num_classes: int, n: int) -> float:
    """The KL that n labels drawn from the uniform distribution show on average, (K - 1) / 2n nats to first order.

    2n KL is the likelihood-ratio statistic G, which tends to chi-squared with K - 1 degrees of freedom (Wilks, 1938). A
    KL near this floor says "even", not "uneven by that much".
    """
    return (num_classes - 1) / (2 * n)


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
