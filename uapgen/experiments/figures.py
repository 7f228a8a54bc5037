"""Small multiples: a panel for each method with all the others in grey behind it; legible with thirty methods."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart; titles say the class in words as well.
COLOURS = {"none": "#0072B2", "proxy": "#D55E00", "driven": "#007F5F", "unknown": "#555555"}
GREY = "#C8C8C8"
INK = "#222222"
DPI = 150


@dataclass(frozen=True)
class Panel:
    """One curve under its title; `note` stands at the right above it."""

    title: str
    data_class: str
    x: Sequence[float]
    y: Sequence[float]
    note: str = ""


def columns_for(n: int) -> int:
    """Panels in a row: as near to two wide by one high as whole rows allow, six at most."""
    return next((c for c in range(1, 6) if c * c >= 1.6 * n), 6) if n > 3 else max(n, 1)


def draw_panels(
    panels: Sequence[Panel], path: Path, *, title: str, xlabel: str, ylabel: str, dress: Callable[[Any], None]
) -> None:
    """Writes a PNG; `dress(axes)` sets scales, limits and reference lines of each panel."""
    columns = columns_for(len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(max(2.45 * columns, 4.6), 1.75 * rows + 0.85)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(panels):
            axes.set_axis_off()
            continue
        if number + columns >= len(panels):  # nothing below: the panel carries the axis
            axes.tick_params(labelbottom=True)
        _draw(axes, panels[number], panels, dress)
    headline(figure, title)
    figure.supxlabel(xlabel, fontsize=9, color=INK)
    figure.supylabel(ylabel, fontsize=9, color=INK)
    save(figure, path)


def _draw(axes: Axes, panel: Panel, panels: Sequence[Panel], dress: Callable[[Any], None]) -> None:
    for other in panels:
        axes.plot(other.x, other.y, color=GREY, linewidth=0.7, zorder=1)
    colour = COLOURS[panel.data_class]
    marker = "o" if len(panel.x) < 20 else None
    axes.plot(panel.x, panel.y, color=colour, linewidth=1.8, zorder=3, clip_on=False, marker=marker, markersize=3.5)
    axes.set_title(wrap(panel.title, 30 if not panel.note else 24), fontsize=7.5, loc="left", color=colour, pad=3)
    if panel.note:
        axes.set_title(panel.note, fontsize=7.5, loc="right", color=colour, fontweight="bold", pad=3)
    dress(axes)
    tidy(axes)


def wrap(text: str, width: int) -> str:
    """Breaks a method spec before @, + and a bracket, where a line would become longer than `width`."""
    first, *parts = re.split(r"(?=[@+]| \()", text)
    lines = [shorten(first, width)]
    for part in parts:
        if len(lines[-1]) + len(part) <= width:
            lines[-1] += part
        else:
            lines.append(shorten(part.strip(), width))
    return "\n".join(lines)


def shorten(text: str, width: int) -> str:
    """`text` with its middle left out, if it is longer than `width`: the ends of paths and names say most."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def headline(figure: Figure, text: str) -> None:
    width = int(figure.get_figwidth() / 0.074)  # inches a letter takes at this size
    figure.suptitle(textwrap.fill(text, width), fontsize=9.5, x=0.01, ha="left", color=INK)


def tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    axes.tick_params(labelsize=7, color="#888888", labelcolor=INK, length=2.5)
    axes.tick_params(which="minor", length=0)


def new_figure(width: float, height: float) -> Figure:
    """In inches. No pyplot: that would keep figures alive and ask for a display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
