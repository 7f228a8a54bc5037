"""`uapgen import`: somebody else's bare perturbation as a uapgen file."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError
from .options import parse_eps, say


@click.command("import", short_help="Turn somebody else's perturbation file into a uapgen file.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--unit", type=click.Choice(["0..1", "0..255"]), help="Range that the file's values refer to.")
@click.option("--layout", type=click.Choice(["CHW", "HWC"]), help="Order of its axes.")
@click.option("--channels", type=click.Choice(["RGB", "BGR"]), default="RGB", show_default=True)
@click.option(
    "--eps", required=True, metavar="LEVELS", help="L-inf bound it was made with, in levels of 255, such as 10."
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
def command(file: Path, unit: str | None, layout: str | None, channels: str, eps: str, out: Path) -> None:
    """Read FILE (.npy, .pt, .pth, .safetensors, or a .png that holds levels + 128) and write OUT.

    Unit and layout are never guessed; a .png needs neither. Files that would run code are refused.

    \b
    uapgen import gd_uap.npy --unit 0..255 --layout HWC --channels BGR --eps 10 -o gd-uap.safetensors
    """
    from ..perturbation.exchange import import_perturbation

    bound = parse_eps(eps)
    if file.suffix.lower() != ".png" and not (unit and layout):
        raise UsageError(f"{file} does not say how it is stored; give both --unit 0..1|0..255 and --layout CHW|HWC")
    if out.resolve() == file.resolve():
        raise UsageError(f"-o {out} is the file to read; choose another name")
    perturbation = import_perturbation(
        file, unit=unit or "0..255", layout=layout or "HWC", channels=channels, eps=bound
    )
    perturbation.save(out)
    h, w = perturbation.size
    say(f"{h}x{w}, linf {perturbation.eps * 255:.4g}/255, sha256 {perturbation.sha256[:12]}")
    click.echo(str(out))
