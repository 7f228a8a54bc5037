"""`uapgen apply`: perturbed copies of image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ..errors import UapgenError, UsageError
from .options import say

if TYPE_CHECKING:
    from PIL import Image

    from ..images.listing import Listing
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
    """Write clip(image + delta) for every file in IMAGES (or in folders and tars given there) as 8-bit PNG, rounded.

    \b
    uapgen apply uap.safetensors cat.png dog.jpg -o adversarial/
    uapgen apply uap.safetensors photos/ -o adversarial/ --resize
    """
    from ..perturbation import Perturbation

    perturbation = Perturbation.load(uap)
    pictures = [picture for path in images for picture in _pictures(path)]
    files = [picture.file for picture in pictures]
    targets = plan_names(files, out)
    _check(files, targets, force)
    if not resize:
        for picture in pictures:
            _check_size(picture, perturbation.size)
    for picture, target in zip(pictures, targets, strict=True):
        _write(perturbation, picture, target)
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


class _Picture(NamedTuple):
    """A picture of a `listing`, which may lie in a tar."""

    listing: Listing
    name: str

    @property
    def file(self) -> Path:
        return self.listing.root / self.name

    def open(self) -> Image.Image:
        """Upright: a PNG would lose the camera's rotation mark."""
        from ..images.decode import read_picture

        return read_picture(self.listing.read(self.name), self.file, upright=True)


def _pictures(path: Path) -> list[_Picture]:
    """A file, or those of a folder, a tar or a pattern."""
    from ..images.listing import Listing, find_images, is_pattern

    if path.is_dir() or path.suffix.lower() == ".tar" or is_pattern(path):
        listing = find_images(path, UapgenError)
    elif path.is_file():
        listing = Listing(path.parent, [path.name])
    else:
        raise UapgenError(f"{path} is not there; expected an image file, or a folder or tar of them")
    return [_Picture(listing, name) for name in listing.names]


def _check(files: list[Path], targets: list[Path], force: bool) -> None:
    """Nothing is written before all names are known to be free."""
    inputs = {file.resolve() for file in files}
    for target in targets:
        if target.resolve() in inputs:
            raise UsageError(f"{target} is one of the images to read; choose another folder with -o")
        if target.exists() and not force:
            raise UsageError(f"{target} exists; choose another folder with -o, or give --force to overwrite")


def _check_size(picture: _Picture, size: tuple[int, int]) -> None:
    width, height = picture.open().size
    if (height, width) != size:
        h, w = size
        raise UsageError(
            f"{picture.file} is {width}x{height} but the perturbation is {w}x{h} (width x height); give --resize to "
            "fit it"
        )


def _write(perturbation: Perturbation, picture: _Picture, target: Path) -> None:
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    from ..runtime import atomic_write

    adversarial = perturbation.apply(pil_to_tensor(picture.open()), resize=True)
    with atomic_write(target) as temporary:
        Image.fromarray(adversarial.movedim(0, -1).numpy()).save(temporary, format="PNG")
