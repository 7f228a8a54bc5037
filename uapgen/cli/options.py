"""Options that several verbs share, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError


def parse_eps(text: str) -> float:
    """`10` and `10/255` are the same budget, in levels of 255; returned in [0,1].

    Raises UsageError for zero, negative values, values above 255, and for bare fractions such as 0.04.
    """
    number = text[:-4] if text.endswith("/255") else text
    try:
        levels = float(number)
    except ValueError:
        raise UsageError(f"--eps {text!r} is not a number; expected levels of 255, such as 10 or 10/255") from None
    if not 0 < levels <= 255:  # also refuses nan
        raise UsageError(f"--eps {text} is outside (0, 255]; expected levels of 255, such as 10")
    if levels < 1 and number == text:
        near = max(1, round(levels * 255))
        raise UsageError(f"--eps {text} looks like a [0,1] value; it is counted in levels of 255: did you mean {near}?")
    return levels / 255


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--device, --precision, --offline and --threads."""
    for option in (
        click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads for torch."),
        click.option(
            "--offline", is_flag=True, help="Never touch the network; fail at once where weights are missing."
        ),
        click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True),
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N"),
    ):
        command = option(command)
    return command


def tensorboard_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--tensorboard."""
    kind, text = click.Path(path_type=Path), "Write the run's numbers there too, for TensorBoard (an extra)."
    return click.option("--tensorboard", type=kind, metavar="DIR", help=text)(command)


def weight_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--weights and --arch, for a victim whose weights are a local file."""
    for option in (
        click.option("--arch", metavar="NAME", help="Architecture (timm name) for a victim file:PATH."),
        click.option(
            "--weights", type=click.Path(path_type=Path), metavar="FILE", help="Local weights for the victim."
        ),
    ):
        command = option(command)
    return command


def victim_options(command: Callable[..., Any], multiple: bool = False) -> Callable[..., Any]:
    """--victim (repeatable as `victims` when `multiple`), --weights and --arch."""
    return click.option(
        "--victim",
        "victims" if multiple else "victim",
        multiple=multiple,
        required=True,
        metavar="SPEC",
        help="timm/NAME.TAG, tv/NAME, embedded/NAME, file:PATH, module:function, NAME:random (see 'victims --help').",
    )(weight_options(command))


def say(text: str) -> None:
    """Talk goes to stderr; stdout is data."""
    from ..distributed import is_main

    if is_main():
        click.echo(text, err=True)


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE texts of --set as a dict; dashes in keys become underscores. Raises UsageError for anything else."""
    pairs = [text.partition("=") for text in settings]
    for key, separator, value in pairs:
        if not (key and separator and value):
            raise UsageError(f"--set {key + separator + value!r} is not KEY=VALUE")
    return {key.replace("-", "_"): value for key, _, value in pairs}


def parse_bound(text: str, norm: str) -> float:
    """--eps of a command that takes both norms: `parse_eps` for linf, the pattern's length for l2."""
    return parse_eps(text) if norm == "linf" else parse_l2(text)


def parse_l2(text: str) -> float:
    """An L2 budget, in levels of 255 like the other (2000 is customary in the 2017 paper's units)."""
    try:
        levels = float(text)
    except ValueError:
        raise UsageError(
            f"--eps {text!r} is not a number; with --norm l2 it is the pattern's L2 length in levels of 255"
        ) from None
    if not levels > 0 or levels == float("inf"):
        raise UsageError(f"--eps {text} is not a positive L2 length in levels of 255, such as 2000")
    return levels / 255
