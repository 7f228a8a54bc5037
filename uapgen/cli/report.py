"""uapgen report: results as one page for people."""

from __future__ import annotations

from pathlib import Path

import click

from .options import say

_FILE = click.Path(path_type=Path)


@click.command("report")
@click.argument("results", type=_FILE, metavar="RUN_OR_RESULTS")
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--format", "form", type=click.Choice(["html", "md"]), help="[default: as FILE ends]")
@click.option("--predictions", type=_FILE, metavar="FILE.npz", help="Of evaluate --predictions: adds rates by class.")
@click.option("--images", metavar="DIR|TAR", help="Pictures to show, clean and perturbed.  [default: foolbox's]")
@click.option("--victim", metavar="SPEC", help="How to load the victim, where its recorded name does not say it.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N")
def command(
    results: Path,
    out: Path,
    form: str | None,
    predictions: Path | None,
    images: str | None,
    victim: str | None,
    device: str,
) -> None:
    """Turn the JSON of evaluate, or the folder of compare, into one self-contained page.

    It says what was attacked, with what, and how honest the numbers are; then tables, heat map, patterns, spectra,
    images with the victim's predictions, dominant classes. Everything is inside the file: no script, nothing to fetch.
    The Markdown form has the text and the tables.

    \b
    uapgen evaluate uap.safetensors --victim tv/vgg16 --data val --json result.json --predictions p.npz
    uapgen report result.json --predictions p.npz -o report.html
    uapgen report run -o report.md
    """
    from ..report import write_report
    from ..runtime import ensure_writable

    ensure_writable(out)
    write_report(results, out, form=form, predictions=predictions, images=images, victim=victim, device=device)
    say(f"wrote {out}")
