"""uapgen craft"""

from __future__ import annotations

import functools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .methods import complete_method, complete_setting
from .options import config_option, device_options, parse_bound, parse_settings, say, tensorboard_option, victim_options
from .progress import Progress

if TYPE_CHECKING:
    from ..attacks import CraftPlan, Method
    from ..victims import Victim


@click.command("craft")
@config_option("craft")
@functools.partial(victim_options, multiple=True)
@click.option("--eps", default="10", show_default=True, metavar="LEVELS", help="Budget in levels of 255: 10 or 10/255.")
@click.option("--norm", type=click.Choice(["linf", "l2"]), default="linf", show_default=True)
@click.option(
    "--method",
    default="cbgan",
    show_default=True,
    metavar="NAME",
    help="See 'uapgen methods list'.",
    shell_complete=complete_method,
)
@click.option(
    "--budget", default="quick", show_default=True, metavar="LEVEL", help="quick, standard, full, or image-gradients."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--proxy", metavar="SPEC", help="Images to craft from: procedural, jigsaw, gaussian, ..., folder:DIR (class proxy)."
)
@click.option("--proxy-filter", type=click.Choice(["gold"]), help="Keep the GAN's under-represented samples (cbgan).")
@click.option("--train-data", metavar="DIR|TAR", help="Images of the victim's own domain to craft from (class driven).")
@click.option("--target", type=int, metavar="CLASS", help="Lead every image to this class.")
@click.option("--tile", type=int, default=1, show_default=True, help="Repeat the pattern TILE x TILE times.")
@click.option("--stop-on", metavar="DIR|TAR", help="Images to stop and select on, for methods that do (class driven).")
@click.option("--through", metavar="LIST", help="Craft so that it survives these defences: jpeg75,none,shift4,...")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the method, see 'uapgen methods show NAME'; repeatable.",
    shell_complete=complete_setting,
)
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("uap.safetensors"), show_default=True)
@click.option(
    "--run", "run_folder", type=click.Path(path_type=Path), metavar="DIR", help="State and log.  [default: OUT.run]"
)
@click.option("--restart", is_flag=True, help="Discard a saved run instead of continuing it.")
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan as JSON, with its cost, and stop.")
@tensorboard_option
@device_options
def command(**options: Any) -> None:
    """Craft a universal perturbation against a victim.

    Data-free unless told otherwise: no image is read without --proxy folder:DIR or --train-data. An interrupted run
    goes on when the same command is run again.

    \b
    uapgen craft --victim embedded/efficientnet_lite0 --eps 10 -o uap.safetensors
    uapgen craft --victim tv/vgg16,tv/googlenet --through none,jpeg75 --budget standard -o robust.safetensors
    uapgen craft --victim timm/resnet50.tv_in1k --method sga --train-data imagenet/train --budget standard
    torchrun --nproc-per-node 4 -m uapgen craft --victim timm/resnet50.tv_in1k --budget full
    """
    try:
        _craft(_Options(**options))
    finally:
        if "RANK" in os.environ:  # else torch may not be loaded yet
            from ..distributed import finish

            finish()


@dataclass(frozen=True)
class _Options:
    """The options of the command line, as click reads them."""

    victims: tuple[str, ...]
    weights: Path | None
    arch: str | None
    eps: str
    norm: str
    method: str
    budget: str
    seed: int
    proxy: str | None
    proxy_filter: str | None
    train_data: str | None
    target: int | None
    tile: int
    stop_on: str | None
    through: str | None
    settings: tuple[str, ...]
    out: Path
    run_folder: Path | None
    restart: bool
    dry_run: bool
    tensorboard: Path | None
    device: str
    precision: str
    offline: bool
    threads: int | None


def _craft(given: _Options) -> None:
    # Cheap checks first: nothing below may fail on an argument after minutes of work.
    bound = parse_bound(given.eps, given.norm)
    params = _parameters(given)

    from .. import distributed
    from ..attacks import check_craft, check_sharing
    from ..defences import parse_defences
    from ..proxies import ProxySource, parse_source
    from ..runtime import ensure_writable, resolve_device, start_process

    check_sharing(given.method, distributed.started())
    defences = parse_defences(given.through) if given.through is not None else []
    names = _victim_names(given)
    progress = Progress(given.tensorboard)
    start_process(given.threads)
    if distributed.is_main():
        ensure_writable(given.out)
    distributed.init(resolve_device(given.device))
    model = _load(given, names)

    def images(spec: str | None) -> ProxySource | None:
        return parse_source(spec, model.input_size[1:], model.device, transform=model.transform) if spec else None

    plan = check_craft(
        model,
        method=given.method,
        source=images(f"driven:{given.train_data}" if given.train_data else given.proxy),
        eps=bound,
        norm=given.norm,
        seed=given.seed,
        budget=given.budget,
        target=given.target,
        tile=given.tile,
        stop_on=images(f"driven:{given.stop_on}" if given.stop_on else None),
        through=defences,
        **params,
    )
    if given.dry_run:
        _show(plan, given.out)
    else:
        _carry_out(plan, given, progress)


def _parameters(given: _Options) -> dict[str, Any]:
    """The method's parameters, checked, that --set and --proxy-filter give; raises UsageError for what cannot be."""
    params = parse_settings(given.settings)
    if given.proxy and given.train_data:
        raise UsageError("--proxy and --train-data both name the crafting images; give one of them")
    if given.out.suffix != ".safetensors":
        raise UsageError(f"-o {given.out} should end in .safetensors ('uapgen show' exports other formats)")

    from ..attacks import find_method

    method = find_method(given.method)
    if given.proxy_filter:
        params |= _filter_setting(method, given.proxy_filter, params)
    method.check(params)
    return params


def _victim_names(given: _Options) -> list[str]:
    from ..victims import split_specs

    names = [name for text in given.victims for name in split_specs(text)]
    if len(names) > 1 and (given.weights or given.arch):
        raise UsageError(f"--weights and --arch belong to one victim, and {len(names)} were given")
    return names


def _load(given: _Options, names: list[str]) -> Victim:
    """The victim, or an ensemble of several; says what they are."""
    from ..victims import Ensemble, announce, load_victim

    load = functools.partial(load_victim, weights=given.weights, arch=given.arch, device=given.device)
    loaded = [load(name, precision=given.precision, offline=given.offline) for name in names]
    for one in loaded:
        for text in (announce(one), *(f"warning: {warning}" for warning in one.warnings)):
            say(text)
    return loaded[0] if len(loaded) == 1 else Ensemble(loaded)


def _show(plan: CraftPlan, out: Path) -> None:
    """The plan as JSON, and what it costs."""
    from ..distributed import is_main
    from .progress import seconds_per_image

    seconds = round(plan.budget * seconds_per_image(plan.victim, 16, gradient=True))
    if is_main():
        cost = {"image_gradients": plan.budget, "seconds": seconds}
        click.echo(json.dumps({**plan.describe(), **cost, "out": str(out)}, indent=1))


def _carry_out(plan: CraftPlan, given: _Options, progress: Progress) -> None:
    from ..attacks import carry_out
    from ..distributed import is_main

    folder = given.run_folder or given.out.with_name(given.out.name + ".run")
    started = time.monotonic()
    try:
        uap = carry_out(plan, folder=folder, restart=given.restart, callback=progress if is_main() else None)
    finally:
        progress.close()
    if not is_main():
        return
    uap.save(given.out)
    cost = uap.card["cost"]
    say(
        f"{given.out}: {plan.method.name}, data class {uap.data_class}, {given.norm} {given.eps}, "
        f"{cost['image_gradients']} image-gradients, {time.monotonic() - started:.0f} s here; log in {folder}"
    )
    click.echo(str(given.out))


def _filter_setting(method: Method, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """--proxy-filter as the parameter that it stands for."""
    from ..attacks import methods

    if "proxy_filter" not in method.parameters():
        having = ", ".join(other for other, known in methods().items() if "proxy_filter" in known.parameters())
        raise UsageError(f"--proxy-filter chooses among a GAN's samples, and {method.name} has none (has: {having})")
    if params.get("proxy_filter", name) != name:
        raise UsageError(f"--proxy-filter {name} and --set proxy_filter={params['proxy_filter']} differ; give one")
    return {"proxy_filter": name}
