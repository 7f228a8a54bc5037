"""The pictures of a comparison: curves, spectra and patterns, and transfer from its own file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..perturbation import Perturbation
from ..picture import amplification, pattern
from .heatmap import draw_transfer
from .panels import COLOURS, GREY, INK, WORDS, Panel, columns_for, draw_panels, headline, new_figure, save, wrap
from .spectrum import LOW
from .store import Store
from .table import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_all(result: dict[str, Any], store: Store) -> None:
    """Draws what there is into the folder of `store`: curves.png, spectrum.png, patterns.png, transfer.png."""
    if not result["rows"]:
        return
    if result["curves"]:
        draw_curves(result, store.path / "curves.png")
    draw_spectra(result, store.path / "spectrum.png")
    draw_patterns(result, store, store.path / "patterns.png")
    draw_transfer(result, store.path / "transfer.png")


def _in_order(result: dict[str, Any], entries: list[dict[str, Any]], victim: str) -> list[dict[str, Any]]:
    """As the rows of the victim's table are."""
    order = [row["method"] for row in result["rows"] if row["victim"] == victim]
    return sorted((e for e in entries if e["method"] in order), key=lambda entry: order.index(entry["method"]))


def draw_curves(result: dict[str, Any], path: Path) -> None:
    drawn = {curve["victim"] for curve in result["curves"]}
    victim = next(name for name in result["crafted_on"] if name in drawn)
    curves = _in_order(result, [curve for curve in result["curves"] if curve["victim"] == victim], victim)
    floor = result["victims"][victim]["floor"]["rate"]
    most = max([result["budget"], *(curve["image_gradients"][-1] for curve in curves)])  # a last batch may overshoot
    panels = [
        Panel(
            f"{curve['method']} ({WORDS[curve['data_class']]})",
            curve["data_class"],
            curve["image_gradients"],
            [100 * rate for rate in curve["rates"]],
            percent(curve["rates"][-1]),
        )
        for curve in curves
    ]

    def dress(axes: Axes) -> None:
        axes.axhline(100 * floor, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
        axes.set_xlim(0, most * 1.02)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 50, 100])
        ticks = [0, result["budget"] // 2, result["budget"]]
        axes.set_xticks(ticks, [f"{tick / 1000:g}k" if tick >= 10_000 else str(tick) for tick in ticks])

    n = " or ".join(str(n) for n in sorted({curve["n"] for curve in curves}))
    draw_panels(
        panels,
        path,
        title=f"Fooling rate over cost, {victim}, seed {curves[0]['seed']}, n = {n}; dashed: random floor",
        xlabel="image-gradients",
        ylabel=f"fooling rate (%), {n} images",
        dress=dress,
    )


def draw_spectra(result: dict[str, Any], path: Path) -> None:
    victim = result["crafted_on"][0]
    panels = [
        Panel(
            f"{entry['method']} ({WORDS[entry['data_class']]})",
            entry["data_class"],
            entry["cycles_per_image"],
            [share * entry["size"][0] * entry["size"][1] for share in entry["share"]],
            f"{percent(entry['below_28'])}%",
        )
        for entry in _in_order(result, result["spectra"], victim)
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


def draw_patterns(result: dict[str, Any], store: Store, path: Path) -> None:
    victim = result["crafted_on"][0]
    entries = _in_order(result, result["spectra"], victim)
    means = {row["method"]: row["fooling_rate"]["mean"] for row in result["rows"] if row["victim"] == victim}
    columns = columns_for(len(entries))
    rows = -(-len(entries) // columns)
    figure = new_figure(max(1.9 * columns, 4.6), 2.25 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    factor = 0.0
    for axes, entry in zip(grid.flat, entries, strict=False):
        uap = Perturbation.load(store.uap(entry["uap"]))
        factor = amplification(uap)
        axes.imshow(pattern(uap).movedim(0, -1).numpy(), interpolation="nearest")
        words = f"{wrap(entry['method'], 26)}\n{WORDS[entry['data_class']]}, {percent(means[entry['method']])}%"
        axes.set_title(words, fontsize=7, color=COLOURS[entry["data_class"]], pad=3)
    title = f"Patterns for {victim}, amplified x{factor:.3g} around grey; fooling rates there"
    headline(figure, title)
    save(figure, path)
