"""uapgen compare: methods side by side."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UapgenError, UsageError
from .options import config_option, device_options, parse_bound, say

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison


@click.command("compare")
@config_option("compare")
@click.option("--victim", "victims", multiple=True, required=True, metavar="SPEC", help="Craft and measure on it.")
@click.option("--transfer-victim", "transfer", multiple=True, metavar="SPEC", help="Only measure on it.")
@click.option("--weights", multiple=True, metavar="[SPEC=]FILE", help="Local weights of a victim; repeatable.")
@click.option("--arch", multiple=True, metavar="[SPEC=]NAME", help="Architecture of a victim file:PATH; repeatable.")
@click.option("--methods", multiple=True, required=True, metavar="A,B,...", help="Method specs, or all.")
@click.option("--data", required=True, metavar="DIR|TAR|foolbox", help="Images to measure on.")
@click.option("--train-data", metavar="DIR|TAR", help="Images of the victims' domain, to craft on.")
@click.option("--import", "imports", multiple=True, metavar="FILE:UNIT:LAYOUT", help="Somebody's perturbation file.")
@click.option("--eps", default="10", show_default=True, metavar="LEVELS", help="Bound in levels of 255: 10 or 10/255.")
@click.option("--norm", type=click.Choice(["linf", "l2"]), default="linf", show_default=True)
@click.option(
    "--budget", default="quick", show_default=True, metavar="LEVEL", help="quick, standard, full, or image-gradients."
)
@click.option("--seeds", default="0", show_default=True, metavar="0..2|0,1,2", help="Every method once with each.")
@click.option("--seeds-for", metavar="METHOD,...", help="Only these take more than the first seed.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Measure on N images, evenly spread.")
@click.option(
    "--curve",
    metavar="N",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="Images for the curves; 0 for none.",
)
@click.option("--batch-size", metavar="N", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--workers", metavar="N", type=click.IntRange(min=0), help="Processes that decode images.")
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="RUN")
@click.option("--json", "json_file", metavar="FILE|-", help="The results once more; - is stdout, instead of the table.")
@device_options
def command(**options: Any) -> None:
    """Craft with METHODS on every --victim at one budget, and measure every pattern on all victims.

    A method is NAME, with the images it crafts on (sga@procedural, cosine-uap@folder:DIR, gd-uap@train for
    --train-data, which a method that needs images takes by itself) and parameters (gd-uap+prior=range, sga+tile=2).
    RUN holds everything: table.md, results.json, curves.png, transfer.png, patterns.png, spectrum.png, and the
    perturbations. An interrupted run goes on when the same command is run again; other methods, seeds and victims can
    be added to it by further commands.

    Measuring is in fp32; --precision is that of crafting.

    \b
    uapgen compare --victim embedded/efficientnet_lite0 --methods noise,cbgan,sga@procedural --data foolbox -o run
    uapgen compare --victim timm/resnet50.tv_in1k --transfer-victim tv/vgg16 --methods all --seeds 0..2 \\
        --train-data imagenet/train --data imagenet/val --limit 5000 --import gd-uap.npy:0..255:HWC:BGR -o run
    """
    try:
        _compare(**options)
    finally:
        if "RANK" in os.environ:  # else torch may not be loaded yet
            from ..distributed import finish

            finish()


def _compare(
    *,
    victims: tuple[str, ...],
    transfer: tuple[str, ...],
    methods: tuple[str, ...],
    out: Path,
    json_file: str | None,
    threads: int | None,
    device: str,
    **options: Any,
) -> None:
    everyone = list(dict.fromkeys([*victims, *transfer]))
    files = assign("--weights", options.pop("weights"), everyone)
    architectures = assign("--arch", options.pop("arch"), [spec for spec in everyone if spec.startswith("file:")])

    from .. import distributed
    from ..compare import compare
    from ..runtime import ensure_writable, resolve_device, start_process
    from ..victims import announce, load_victim
    from .progress import Progress

    loading: dict[str, Any] = {name: options.pop(name) for name in ("precision", "offline")}
    asked = _asked(",".join(methods), **options)
    for path in (out / "results.json", json_file):
        if path not in (None, "-") and distributed.is_main():
            ensure_writable(str(path))
    start_process(threads)
    distributed.init(resolve_device(device))
    loaded = {}
    for spec in everyone:
        own: dict[str, Any] = {"weights": files.get(spec), "arch": architectures.get(spec)}
        loaded[spec] = load_victim(spec, device=device, **own, **loading)
        say(announce(loaded[spec]))
    bar = Progress() if sys.stderr.isatty() and distributed.is_main() else None

    def step(text: str) -> None:
        if bar:
            bar.close()
        say(text)

    result = compare(
        {spec: loaded[spec] for spec in victims},
        ",".join(methods),
        out=out,
        transfer_victims={spec: loaded[spec] for spec in transfer if spec not in victims},
        command=shlex.join(["uapgen", *sys.argv[1:]]),
        say=step,
        callback=bar,
        **asked,
    )
    _finish(result, out, json_file)


def _asked(methods: str, *, eps: str, seeds: str, seeds_for: str | None, data: str, **options: Any) -> dict[str, Any]:
    """The options as `compare` takes them. Raises now, before victims are loaded, for those that are wrong."""
    from ..compare import parse_import, parse_methods, parse_seeds
    from ..images.listing import find_images

    bound = parse_bound(eps, options["norm"])
    numbers = parse_seeds(seeds)
    parse_methods(methods, train_data=options["train_data"] is not None, norm=options["norm"])
    for text in options["imports"]:
        parse_import(text)
    find_images(data)
    repeated = seeds_for.split(",") if seeds_for else ()
    return {**options, "data": data, "eps": bound, "seeds": numbers, "seeds_for": repeated}


def _finish(result: Comparison, out: Path, json_file: str | None) -> None:
    from ..distributed import is_main

    if is_main():
        _show(result, out, json_file)
    if not result.complete:
        failed = result.failed
        raise UapgenError(
            f"{len(failed)} cells failed, the first is {failed[0].title}: {failed[0].error}; "
            f"the others are in {out / 'table.md'}, and the same command tries these again"
        )


def _show(result: Comparison, out: Path, json_file: str | None) -> None:
    from ..runtime import atomic_write

    text = (out / "results.json").read_text()
    if json_file not in (None, "-"):
        with atomic_write(str(json_file)) as temporary:
            temporary.write_text(text)
    click.echo(text if json_file == "-" else (out / "table.md").read_text(), nl=False)
    if json_file == "-":
        for warning in result.warnings:
            say(f"warning: {warning}")


def assign(option: str, texts: Sequence[str], victims: Sequence[str]) -> dict[str, str]:
    """`SPEC=VALUE` to the victim of that spec; a bare VALUE where only one victim can be meant. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        named = [spec for spec in victims if text.startswith(f"{spec}=")]
        if not named and len(victims) != 1:
            whose = " or ".join(victims) or "a victim that takes it (none here does)"
            raise UsageError(f"{option} {text!r} does not say whose it is; expected SPEC=..., with SPEC {whose}")
        spec = max(named, key=len) if named else victims[0]
        if spec in found:
            raise UsageError(f"{option} is given twice for {spec}")
        found[spec] = text[len(spec) + 1 :] if named else text
    return found
