"""`uapgen apply`: perturbed copies of image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UapgenError, UsageError
from .options import say

if TYPE_CHECKING:
    from ..perturbation import Perturbation


@click.command(short_help="Add a perturbation to image files.")
@click.argument("uap", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the PNGs."
)
@click.option("--resize", is_flag=True, help="Fit the perturbation to each image's size; images keep theirs.")
@click.option("--force", is_flag=True, help="Overwrite files that are in the folder already.")
def command(uap: Path, images: tuple[Path, ...], out: Path, resize: bool, force: bool) -> None:
    """Write clip(image + delta) for every file in IMAGES (or in folders given there) as 8-bit PNG, rounded.

    \b
    uapgen apply uap.safetensors cat.png dog.jpg -o adversarial/
    uapgen apply uap.safetensors photos/ -o adversarial/ --resize
    """
    from ..perturbation import Perturbation

    perturbation = Perturbation.load(uap)
    files = _expand(images)
    targets = plan_names(files, out)
    _check(files, targets, force)
    if not resize:
        for file in files:
            _check_size(file, perturbation.size)
    for file, target in zip(files, targets, strict=True):
        _write(perturbation, file, target)
        click.echo(str(target))
    say(f"{len(targets)} images, {perturbation.norm} {perturbation.eps * 255:.4g}/255")


def plan_names(files: list[Path], out: Path) -> list[Path]:
    """`out`/STEM.png for each file, in order; a stem that is taken gets -2, -3, ...; case does not count."""
    taken: set[str] = set()
    targets = []
    for file in files:
        name, number = file.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name.lower())
        targets.append(out / f"{name}.png")
    return targets


def _expand(images: tuple[Path, ...]) -> list[Path]:
    from ..proxies.folder import list_images

    files: list[Path] = []
    for image in images:
        files += list_images(image) if image.is_dir() else [image]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UapgenError(f"{missing[0]} is not there; expected an image file or a folder of them")
    return files


def _check(files: list[Path], targets: list[Path], force: bool) -> None:
    """Nothing is written before all names are known to be free."""
    inputs = {file.resolve() for file in files}
    for target in targets:
        if target.resolve() in inputs:
            raise UsageError(f"{target} is one of the images to read; choose another folder with -o")
        if target.exists() and not force:
            raise UsageError(f"{target} exists; choose another folder with -o, or give --force to overwrite")


def _check_size(file: Path, size: tuple[int, int]) -> None:
    from ..proxies.folder import open_rgb

    width, height = open_rgb(file, upright=True).size
    if (height, width) != size:
        h, w = size
        raise UsageError(
            f"{file} is {width}x{height} but the perturbation is {w}x{h} (width x height); give --resize to fit it"
        )


def _write(perturbation: Perturbation, file: Path, target: Path) -> None:
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    from ..proxies.folder import open_rgb
    from ..runtime import atomic_write

    image = open_rgb(file, upright=True)  # a PNG would lose the camera's rotation mark
    adversarial = perturbation.apply(pil_to_tensor(image), resize=True)
    with atomic_write(target) as temporary:
        Image.fromarray(adversarial.movedim(0, -1).numpy()).save(temporary, format="PNG")
