"""`uapgen show`: a perturbation's card, its picture, and exports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import say

if TYPE_CHECKING:
    from ..perturbation import Perturbation

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

    from ..errors import UapgenError, UsageError
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
        try:
            lines = _lines(perturbation.card)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UapgenError(f"{file}: the card lacks something ({reason}); --json shows it as it is") from error
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


def _lines(card: dict[str, Any]) -> list[tuple[str, str]]:
    budget, method, data = card["budget"], card["method"], card["data"]
    victim, cost = card.get("victim") or {}, card.get("cost") or {}
    use = f"max {budget['max_abs'] * 255:.4g}/255, l2 {budget['l2']:.4g}"
    if budget.get("saturation") is not None:
        use += f", {budget['saturation']:.1%} of values at the bound"
    sources = ", ".join(str(s.get("source", "?")) for s in data.get("sources") or []) or "no images"
    lines = [
        ("delta", f"{'x'.join(map(str, card['delta']['shape']))} {card['delta']['layout']}, in [0,1] units"),
        ("budget", f"{budget['norm']} {budget['eps_255']:.6g}/255; {use}"),
        ("method", " ".join(str(part) for part in (method["name"], method.get("paper")) if part)),
        ("parameters", " ".join(f"{k}={v}" for k, v in (method.get("params") or {}).items())),
        ("stopped", str(method.get("stopped") or "")),
        ("data class", f"{data['class']} ({sources})"),
        ("victim", f"{victim['name']}, weights {victim['weights']} {victim['weights_sha256'][:12]}" if victim else ""),
        ("seed", "" if card.get("seed") is None else str(card["seed"])),
        ("cost", ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in cost.items())),
        ("resized", f"from {card['resized_from']['size']}" if "resized_from" in card else ""),
        ("made with", ", ".join(f"{k} {v}" for k, v in {"uapgen": card["uapgen"], **card["environment"]}.items() if v)),
        ("created", card.get("created", "")),
        ("sha256", card["delta"]["sha256"]),
    ]
    return [(key, text) for key, text in lines if text]
