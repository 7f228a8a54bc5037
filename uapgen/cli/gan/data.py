"""Options that name labelled data, and the data that they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError

if TYPE_CHECKING:
    from ...longtail import LabelledImages

NAMES = "digits, cifar10, cifar100, svhn, stl10, mnist, fashion-mnist, lsun, an .npz or .txt file, or a folder"


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--data, --data-root, --size, --classes, --download, --imbalance, --imbalance-kind and --n-max."""
    for option in (
        click.option("--n-max", type=click.IntRange(min=1), metavar="N", help="Images of the largest class."),
        click.option("--imbalance-kind", type=click.Choice(["exp", "step"]), default="exp", show_default=True),
        click.option(
            "--imbalance", type=float, metavar="RATIO", help="Keep a long tail: largest class / smallest class."
        ),
        click.option("--download", is_flag=True, help="Fetch a torchvision set that is not at hand."),
        click.option("--classes", type=click.IntRange(min=2), metavar="K", help="Only the first K classes."),
        click.option("--size", type=click.IntRange(min=1), metavar="PIXELS", help="Resize images to a square."),
        click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the set's files lie."),
        click.option("--data", default="digits", show_default=True, metavar="SPEC", help=f"{NAMES}."),
    ):
        command = option(command)
    return command


def training_data(options: dict[str, Any]) -> LabelledImages:
    """The training part that the options name, long-tailed if asked."""
    from ...longtail import long_tailed

    data = _load(options, options["data"], train=True)
    if options["imbalance"] is None:
        if options["n_max"] is not None:
            raise UsageError("--n-max goes with --imbalance; give --imbalance 1 for N images of every class")
        return data
    return long_tailed(data, options["imbalance"], kind=options["imbalance_kind"], n_max=options["n_max"])


def test_data(options: dict[str, Any], test: str | None) -> LabelledImages:
    """The test part: `test` where it names a path, else that of --data."""
    return _load(options, test or options["data"], train=test is not None)


def _load(options: dict[str, Any], spec: str, train: bool) -> LabelledImages:
    from ...longtail import load_data

    return load_data(
        spec,
        root=options["data_root"],
        train=train,
        size=options["size"],
        num_classes=options["classes"],
        download=options["download"],
    )


def recipe_settings(pairs: dict[str, str]) -> dict[str, Any]:
    """Values of --set as TOML has them (numbers, true, lists), else as they stand."""
    import tomllib

    found: dict[str, Any] = {}
    for key, text in pairs.items():
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = text
    return found
