"""`uapgen show`: a perturbation's card, picture, exports. `uapgen import`: somebody else's file made one of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from ..schema import to_json
from .options import parse_eps, say

if TYPE_CHECKING:
    from ..perturbation import Perturbation
    from ..perturbation.card import Card, EffectiveFacts

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Print a perturbation's card; verify, draw or export it.")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
@click.option("--verify", is_flag=True, help="Print one line: the hash that was checked. A changed file exits with 3.")
@click.option("--png", type=_FILE, metavar="F", help="Draw the amplified pattern: a picture, not the perturbation.")
@click.option(
    "--on", type=_FILE, multiple=True, metavar="IMAGE", help="With --png: also draw IMAGE, clean and perturbed."
)
@click.option("--npy", type=_FILE, metavar="F", help="Export delta: float32, CHW, RGB, in [0,1] units.")
@click.option("--pt", type=_FILE, metavar="F", help="Export delta as one torch tensor, like --npy.")
@click.option(
    "--levels", type=_FILE, metavar="F.png", help="Export round(255 * delta) + 128 as 8-bit PNG: whole levels."
)
def command(
    file: Path,
    as_json: bool,
    verify: bool,
    png: Path | None,
    on: tuple[Path, ...],
    npy: Path | None,
    pt: Path | None,
    levels: Path | None,
) -> None:
    """Print the card of FILE. The file is verified first: hash, shape, finite values, budget.

    \b
    uapgen show uap.safetensors --png uap.png --on cat.png
    uapgen show uap.safetensors --json
    """
    import json

    from ..errors import UsageError
    from ..perturbation import Perturbation
    from ..perturbation.exchange import export

    if on and not png:
        raise UsageError("--on IMAGE draws into a picture; give --png F too")
    perturbation = Perturbation.load(file)
    for option, path, suffixes in (
        ("--npy", npy, (".npy",)),
        ("--pt", pt, (".pt", ".pth")),
        ("--levels", levels, (".png",)),
    ):
        if path and path.suffix.lower() not in suffixes:
            raise UsageError(f"{option} {path}: expected a name that ends in {' or '.join(suffixes)}")
    for path in (npy, pt, levels):
        if path:
            export(perturbation, path)
            say(f"wrote {path}")
    if png:
        _draw(perturbation, png, on)
    if as_json:
        click.echo(json.dumps(perturbation.card, indent=1, sort_keys=True))
    elif verify:
        click.echo(f"{file}: ok, sha256 {perturbation.sha256}")
    else:
        lines = _lines(perturbation.facts)
        click.echo(f"{file}\n" + "\n".join(f"  {key:<12}{text}" for key, text in lines))


def _draw(perturbation: Perturbation, png: Path, on: tuple[Path, ...]) -> None:
    import torch

    from ..images.decode import centre_crop, read_picture
    from ..perturbation.picture import draw
    from ..runtime import atomic_write

    crop = centre_crop(perturbation.size)
    images = torch.stack([crop(read_picture(image, image)) for image in on]) if on else None
    with atomic_write(png) as temporary:
        draw(perturbation, images).save(temporary, format="PNG")
    say(f"wrote {png} (a picture, not the perturbation)")


def _done(effective: EffectiveFacts) -> Iterator[tuple[str, str]]:
    """What the run did, a line a stage: steps, image-gradients and the images of a backward pass; layers read."""
    for stage in effective.stages or ():
        batch = f" in batches of {_range(stage.batch)}" if stage.batch else ""
        drawn = f", {_range(stage.images)} images drawn a step" if stage.images else ""
        yield "did", f"{stage.name}: {stage.steps:,} steps, {stage.image_gradients:,} image gradients{batch}{drawn}"
    if layers := effective.layers:
        yield "layers read", f"{len(layers)}: {layers[0]}" + (f" to {layers[-1]}" if len(layers) > 1 else "")


def _range(ends: Sequence[int]) -> str:
    return " to ".join(str(end) for end in sorted(set(ends)))


def _lines(card: Card) -> list[tuple[str, str]]:
    budget, method, data, victim, delta = card.budget, card.method, card.data, card.victim, card.delta
    used = [
        f"max {budget.max_abs * 255:.4g}/255" if budget.max_abs is not None else "",
        f"l2 {budget.l2:.4g}" if budget.l2 is not None else "",
        f"{budget.saturation:.1%} of values at the bound" if budget.saturation is not None else "",
    ]
    sources = ", ".join(str(s.get("source", "?")) for s in data.sources or ()) or "no images"
    spent = to_json(card.cost) if card.cost else {}
    versions = {"uapgen": card.uapgen, **(card.environment or {})}
    weights = f"weights {victim.weights} {str(victim.weights_sha256)[:12]}" if victim else ""
    lines = [
        ("delta", f"{'x'.join(map(str, delta.shape))} {delta.layout}, in [0,1] units"),
        ("budget", f"{budget.norm} {budget.eps * 255:.6g}/255; {', '.join(filter(None, used))}"),
        ("method", " ".join(part for part in (method.name, method.paper) if part)),
        ("parameters", " ".join(f"{k}={v}" for k, v in (method.params or {}).items())),
        *(_done(method.effective) if method.effective else ()),
        ("stopped", method.stopped or ""),
        ("data class", f"{data.kind} ({sources})"),
        ("victim", f"{victim.name}, {weights}" if victim else ""),
        ("seed", "" if card.seed is None else str(card.seed)),
        ("cost", ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in spent.items() if n is not None)),
        ("resized", f"from {list(card.resized_from.size)}" if card.resized_from else ""),
        ("made with", ", ".join(f"{k} {v}" for k, v in versions.items() if v)),
        ("created", card.created or ""),
        ("sha256", delta.sha256),
    ]
    return [(key, text) for key, text in lines if text]


@click.command("import", short_help="Turn somebody else's perturbation file into a uapgen file.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--unit", type=click.Choice(["0..1", "0..255"]), help="Range that the file's values refer to.")
@click.option("--layout", type=click.Choice(["CHW", "HWC"]), help="Order of its axes.")
@click.option("--channels", type=click.Choice(["RGB", "BGR"]), default="RGB", show_default=True)
@click.option(
    "--eps", required=True, metavar="LEVELS", help="L-inf bound it was made with, in levels of 255, such as 10."
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
def import_command(file: Path, unit: str | None, layout: str | None, channels: str, eps: str, out: Path) -> None:
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
