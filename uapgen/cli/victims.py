"""uapgen victims: list, show and check the classifiers that can be attacked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import click

from .options import device_options, say, weight_options


def _spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The SPEC argument with --weights and --arch, and --json."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return click.argument("spec")(weight_options(as_json(command)))


@click.group()
def command() -> None:
    """List, show and check victim classifiers.

    \b
    A victim is named
      timm/NAME.TAG, timm/NAME or NAME   timm, with the weights of TAG or of timm's default tag
      tv/NAME, tv/NAME.IMAGENET1K_V2     torchvision
      embedded/efficientnet_lite0        weights from an installed package: no network
      file:PATH --arch NAME              local weights; NAME --weights PATH is the same
      hf-hub:ORG/NAME, local-dir:DIR     what timm or transformers saved there
      module:function                    your own: returns nn.Module or (nn.Module, Preprocessing)
    timm and tv names take options:
      NAME:random                        random weights, for dry runs
      NAME:pad_type=same,mean=0.5        model arguments and preprocessing (mean, std, input_size, crop_pct, ...)
    """


@command.command("list")
@click.argument("pattern", default="*")
@click.option("--here", "only_here", is_flag=True, help="Only victims whose weights are on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_victims(pattern: str, only_here: bool, as_json: bool) -> None:
    """Names that match PATTERN (a part of the name, or with * and ?), and whether their weights are on this machine."""
    pattern = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    found = [(name, where) for name, where in _all() if fnmatchcase(name, pattern)]
    rows = [(name, where) for name, where in found if where == "here" or not only_here]
    if as_json:
        click.echo(json.dumps([{"name": name, "weights": where} for name, where in rows]))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, where in rows:
        click.echo(f"{name:<{width}}  {where}")
    here = sum(where == "here" for _, where in found)
    say(f"{len(found)} victims match {pattern!r}, {here} with their weights on this machine")


@command.command()
@_spec_options
@device_options
def show(as_json: bool, threads: int | None, **arguments: Any) -> None:
    """Load SPEC and print what it is: weights and their hash, preprocessing, layers."""
    victim = _load(threads, check=False, **arguments)
    card = victim.describe()
    card["parameters"] = sum(p.numel() for p in victim.module.parameters())
    card["layers"] = len(victim.layers())
    card["batch_norms_with_statistics"] = len(victim.batch_norms())
    if as_json:
        click.echo(json.dumps(card, indent=2))
        return
    for key, value in card.items():
        click.echo(f"{key:<28} {', '.join(map(str, value)) if isinstance(value, list) else value}")


@command.command()
@_spec_options
@device_options
def check(as_json: bool, threads: int | None, **arguments: Any) -> None:
    """Load SPEC and test it: logits, finite outputs, image gradients, repeatable answers."""
    victim = _load(threads, check=True, **arguments)
    if as_json:
        click.echo(json.dumps({"victim": victim.describe(), "warnings": victim.warnings}, indent=2))
        return
    for warning in victim.warnings:
        click.echo(f"warning: {warning}")
    if not victim.warnings:
        click.echo(f"{victim.name}: finite logits, image gradients, repeatable answers")


def _load(threads: int | None, **arguments: Any) -> Any:
    from ..runtime import start_process
    from ..victims import announce, load_victim

    start_process(threads)
    victim = load_victim(**arguments)
    say(announce(victim))
    return victim


def _all() -> Iterator[tuple[str, str]]:
    """(name, where its weights are): embedded, timm's published ones, and torchvision's that timm lacks."""
    import timm

    from ..victims import hub, network, vision
    from ..victims.spec import EMBEDDED, vision_names
    from ..victims.vision import installed

    for name in EMBEDDED:
        yield f"embedded/{name}", "here" if installed(name) else "pip install 'uapgen[lite]'"
    for name in timm.list_models(pretrained=True):
        yield f"timm/{name}", "here" if hub.cached_file(timm.get_pretrained_cfg(name)) else "download"
    for name in vision_names():
        if not timm.is_model(name):
            cached = network.torch_cache(vision.weights_entry(name, "").url).is_file()
            yield f"tv/{name}", "here" if cached else "download"
