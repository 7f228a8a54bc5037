"""The pictures of a comparison: curves, spectra, patterns, and the heatmap of transfer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..evaluation.comparison import Comparison, CurveEntry, SpectrumEntry
from ..evaluation.intervals import value_of
from ..experiments.figures import (
    COLOURS,
    GREY,
    INK,
    Panel,
    columns_for,
    draw_panels,
    headline,
    new_figure,
    save,
    shorten,
    wrap,
)
from ..perturbation import Perturbation
from ..perturbation.card import DATA_CLASSES, SHORT_WORDS, UNKNOWN_CLASS
from ..perturbation.picture import LOW, amplification, pattern
from ..tables import percent
from .store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = (*DATA_CLASSES, UNKNOWN_CLASS)
Entry = TypeVar("Entry", CurveEntry, SpectrumEntry)


def draw_all(result: Comparison, store: Store) -> None:
    """Draws what there is into the folder of `store`: curves.png, spectrum.png, patterns.png, transfer.png."""
    if not result.rows:
        return
    if result.curves:
        draw_curves(result, store.path / "curves.png")
    draw_spectra(_in_order(result, result.spectra, result.crafted_on[0]), store.path / "spectrum.png")
    draw_patterns(result, store, store.path / "patterns.png")
    draw_transfer(result, store.path / "transfer.png")


def _in_order(result: Comparison, entries: Iterable[Entry], victim: str) -> list[Entry]:
    """As the rows of the victim's table are."""
    order = [row.method for row in result.rows_of(victim)]
    return sorted((e for e in entries if e.method in order), key=lambda entry: order.index(entry.method))


def draw_curves(result: Comparison, path: Path) -> None:
    drawn = {curve.victim for curve in result.curves}
    victim = next(name for name in result.crafted_on if name in drawn)
    curves = _in_order(result, [curve for curve in result.curves if curve.victim == victim], victim)
    floor = value_of(result.victims[victim].floor)
    most = max([result.budget, *(curve.image_gradients[-1] for curve in curves)])  # a last batch may overshoot
    panels = [
        Panel(
            f"{curve.method} ({SHORT_WORDS[curve.data_class]})",
            curve.data_class,
            curve.image_gradients,
            [100 * rate for rate in curve.rates],
            percent(curve.rates[-1]),
        )
        for curve in curves
    ]

    def dress(axes: Axes) -> None:
        axes.axhline(100 * (floor or 0.0), color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
        axes.set_xlim(0, most * 1.02)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 50, 100])
        ticks = [0, result.budget // 2, result.budget]
        axes.set_xticks(ticks, [f"{tick / 1000:g}k" if tick >= 10_000 else str(tick) for tick in ticks])

    n = " or ".join(str(n) for n in sorted({curve.n for curve in curves}))
    draw_panels(
        panels,
        path,
        title=f"Fooling rate over cost, {victim}, seed {curves[0].seed}, n = {n}; dashed: random floor",
        xlabel="image-gradients",
        ylabel=f"fooling rate (%), {n} images",
        dress=dress,
    )


def draw_spectra(spectra: Sequence[SpectrumEntry], path: Path) -> None:
    """A panel for each spectrum, in this order."""
    panels = [
        Panel(
            f"{entry.method} ({SHORT_WORDS[entry.data_class]})",
            entry.data_class,
            entry.cycles_per_image,
            [share * entry.size[0] * entry.size[1] for share in entry.share],
            f"{percent(entry.below_28)}%",
        )
        for entry in spectra
    ]

    def dress(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
        axes.axvline(LOW, color=GREY, linewidth=0.8, zorder=0)
        axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])

    draw_panels(
        panels,
        path,
        title=f"Spectra of the patterns; share of power below {LOW} cycles/image (grey line); dashed: white noise",
        xlabel="cycles per image",
        ylabel="power (white noise = 1)",
        dress=dress,
    )


def draw_patterns(result: Comparison, store: Store, path: Path) -> None:
    victim = result.crafted_on[0]
    entries = _in_order(result, result.spectra, victim)
    means = {row.method: row.fooling_rate.mean for row in result.rows if row.victim == victim}
    columns = columns_for(len(entries))
    rows = -(-len(entries) // columns)
    figure = new_figure(max(1.9 * columns, 4.6), 2.25 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    factor = 0.0
    for axes, entry in zip(grid.flat, entries, strict=False):
        uap = Perturbation.load(store.uap(entry.uap))
        factor = amplification(uap)
        axes.imshow(pattern(uap).movedim(0, -1).numpy(), interpolation="nearest")
        words = f"{wrap(entry.method, 26)}\n{SHORT_WORDS[entry.data_class]}, {percent(means[entry.method])}%"
        axes.set_title(words, fontsize=7, color=COLOURS[entry.data_class], pad=3)
    title = f"Patterns for {victim}, amplified x{factor:.3g} around grey; fooling rates there"
    headline(figure, title)
    save(figure, path)


FRAME = "#D55E00"


def draw_transfer(result: Comparison, path: Path) -> None:
    """A panel for each crafted victim: methods down, victims across; the crafted victim's own column is framed."""
    victims, sources = result.transfer.victims, result.crafted_on
    classes = {row.method: row.data_class for row in result.rows}
    rank = {row.method: number for number, row in reversed(list(enumerate(result.rows)))}
    order = sorted(classes, key=lambda method: (KINDS.index(classes[method]), rank[method]))
    names, labels = [shorten(name, 30) for name in victims], [shorten(method, 44) for method in order]
    width = 0.072 * max(map(len, labels)) + len(sources) * (0.55 * len(victims) + 0.35) + 1.2
    figure = new_figure(max(width, 5.2), 0.235 * len(order) + 0.05 * max(map(len, names)) + 1.7)
    panels = figure.subplots(1, len(sources), sharey=True, squeeze=False)[0]
    for axes, source in zip(panels, sources, strict=True):
        found = {r.method: r.rates for r in result.transfer.rows if r.crafted_on in (source, None)}
        mesh = _heat(axes, [found.get(method, (None,) * len(victims)) for method in order], victims.index(source))
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
    keys = [kind for kind in KINDS if kind in classes.values()]
    handles = [_swatch(COLOURS[kind], SHORT_WORDS[kind]) for kind in keys]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(keys), fontsize=7, frameon=False)
    save(figure, path)


def _heat(axes: Axes, shares: list[tuple[float | None, ...]], own: int) -> Any:
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
