"""The transfer picture: what was crafted against where it was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .panels import COLOURS, INK, WORDS, headline, new_figure, save, shorten
from .summary import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAME = "#D55E00"


def draw_transfer(result: dict[str, Any], path: Path) -> None:
    """A panel for each crafted victim: methods down, victims across; the crafted victim's own column is framed."""
    victims, sources = result["transfer"]["victims"], result["crafted_on"]
    classes = {row["method"]: row["data_class"] for row in result["rows"]}
    rank = {row["method"]: number for number, row in reversed(list(enumerate(result["rows"])))}
    order = sorted(classes, key=lambda method: (CLASSES.index(classes[method]), rank[method]))
    names, labels = [shorten(name, 30) for name in victims], [shorten(method, 44) for method in order]
    width = 0.072 * max(map(len, labels)) + len(sources) * (0.55 * len(victims) + 0.35) + 1.2
    figure = new_figure(max(width, 5.2), 0.235 * len(order) + 0.05 * max(map(len, names)) + 1.7)
    panels = figure.subplots(1, len(sources), sharey=True, squeeze=False)[0]
    for axes, source in zip(panels, sources, strict=True):
        found = {r["method"]: r["rates"] for r in result["transfer"]["rows"] if r["crafted_on"] in (source, None)}
        mesh = _heat(axes, [found.get(method, [None] * len(victims)) for method in order], victims.index(source))
        axes.set_title(f"crafted on\n{shorten(source, 6 + 7 * len(victims))}", fontsize=7.5, color=INK)
        axes.set_xticks(range(len(victims)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
        axes.set_yticks(range(len(order)), labels, fontsize=7)
        axes.tick_params(length=0)
        for number in range(1, len(order)):
            if classes[order[number]] != classes[order[number - 1]]:
                axes.axhline(number - 0.5, color="white", linewidth=3)
    for label, method in zip(panels[0].get_yticklabels(), order, strict=True):
        label.set_color(COLOURS[classes[method]])
    bar = figure.colorbar(mesh, ax=list(panels), shrink=0.8, pad=0.02)
    bar.set_label("fooling rate (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    headline(figure, "Fooling rates: crafted (rows), measured (columns; framed: the crafted victim)")
    keys = [kind for kind in CLASSES if kind in classes.values()]
    handles = [_swatch(COLOURS[kind], WORDS[kind]) for kind in keys]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(keys), fontsize=7, frameon=False)
    save(figure, path)


def _heat(axes: Axes, shares: list[list[float | None]], own: int) -> Any:
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    rates = [[float("nan") if share is None else 100 * share for share in line] for line in shares]
    mesh = axes.imshow(rates, cmap="viridis", norm=Normalize(0, 100), aspect="auto")
    for i, line in enumerate(rates):
        for j, rate in enumerate(line):
            if rate == rate:  # nothing is written where nothing was measured
                colour = "white" if rate < 55 else "black"
                axes.text(j, i, f"{rate:.0f}", ha="center", va="center", fontsize=7, color=colour)
    frame = Rectangle((own - 0.5, -0.5), 1, len(rates), fill=False, edgecolor=FRAME, linewidth=2, zorder=5)
    axes.add_patch(frame)
    frame.set_clip_on(False)
    return mesh


def _swatch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)
