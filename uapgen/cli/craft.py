"""uapgen craft"""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .config import config_option
from .options import device_options, parse_bound, parse_settings, say, tensorboard_option, victim_options
from .progress import Progress

if TYPE_CHECKING:
    from ..attacks import Method
    from ..proxies import ProxySource


@click.command("craft")
@config_option("craft")
@functools.partial(victim_options, multiple=True)
@click.option("--eps", default="10", show_default=True, metavar="LEVELS", help="Budget in levels of 255: 10 or 10/255.")
@click.option("--norm", type=click.Choice(["linf", "l2"]), default="linf", show_default=True)
@click.option("--method", default="cbgan", show_default=True, metavar="NAME", help="See 'uapgen methods list'.")
@click.option(
    "--budget", default="quick", show_default=True, metavar="LEVEL", help="quick, standard, full, or image-gradients."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--proxy", metavar="SPEC", help="Images to craft from: procedural, jigsaw, gaussian, ..., folder:DIR (class proxy)."
)
@click.option("--proxy-filter", type=click.Choice(["gold"]), help="Keep the GAN's under-represented samples (cbgan).")
@click.option("--train-data", metavar="DIR", help="Images of the victim's own domain to craft from (class driven).")
@click.option("--target", type=int, metavar="CLASS", help="Lead every image to this class.")
@click.option("--tile", type=int, default=1, show_default=True, help="Repeat the pattern TILE x TILE times.")
@click.option("--stop-on", metavar="DIR", help="Images to stop and select on, for methods that do so (class driven).")
@click.option("--through", metavar="LIST", help="Craft so that it survives these defences: jpeg75,none,shift4,...")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the method; repeatable.")
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
        _craft(**options)
    finally:
        if "RANK" in os.environ:  # else torch may not be loaded yet
            from ..distributed import finish

            finish()


def _craft(
    *,
    victims: tuple[str, ...],
    weights: Path | None,
    arch: str | None,
    eps: str,
    norm: str,
    method: str,
    budget: str,
    seed: int,
    proxy: str | None,
    proxy_filter: str | None,
    train_data: str | None,
    target: int | None,
    tile: int,
    stop_on: str | None,
    through: str | None,
    settings: tuple[str, ...],
    out: Path,
    run_folder: Path | None,
    restart: bool,
    dry_run: bool,
    tensorboard: Path | None,
    device: str,
    precision: str,
    offline: bool,
    threads: int | None,
) -> None:
    # Cheap checks first: nothing below may fail on an argument after minutes of work.
    bound = parse_bound(eps, norm)
    params = parse_settings(settings)
    if proxy and train_data:
        raise UsageError("--proxy and --train-data both name the crafting images; give one of them")
    if out.suffix != ".safetensors":
        raise UsageError(f"-o {out} should end in .safetensors ('uapgen show' exports other formats)")

    from .. import distributed
    from ..attacks import check_sharing, craft, find_method, parse_budget
    from ..defences import parse_defences
    from ..proxies import parse_source
    from ..runtime import ensure_writable, resolve_device, start_process
    from ..victims import Ensemble, announce, load_victim, split_specs

    if proxy_filter:
        params |= _filter_setting(find_method(method), proxy_filter, params)
    find_method(method).check(dict(params))
    check_sharing(method, distributed.started())
    defences = parse_defences(through) if through is not None else []
    names = [name for text in victims for name in split_specs(text)]
    if len(names) > 1 and (weights or arch):
        raise UsageError(f"--weights and --arch belong to one victim, and {len(names)} were given")
    progress = Progress(tensorboard)
    start_process(threads)
    if distributed.is_main():
        ensure_writable(out)
    distributed.init(resolve_device(device))
    loaded = [
        load_victim(name, weights=weights, arch=arch, device=device, precision=precision, offline=offline)
        for name in names
    ]
    for one in loaded:
        for text in (announce(one), *(f"warning: {warning}" for warning in one.warnings)):
            say(text)
    model = loaded[0] if len(loaded) == 1 else Ensemble(loaded)

    def images(spec: str | None) -> ProxySource | None:
        size = model.input_size[1:]
        return parse_source(spec, size, model.device, transform=model.transform) if spec else None

    source = images(f"driven:{train_data}" if train_data else proxy)
    if dry_run:
        from .estimate import seconds_per_image

        steps = parse_budget(budget)
        plan = {
            "method": method,
            "params": params,
            "victim": model.describe(),
            "eps": bound,
            "norm": norm,
            "budget": budget,
            "image_gradients": steps,
            "seconds": round(steps * seconds_per_image(model, 16, gradient=True)),
            "target": target,
            "tile": tile,
            "through": [defence.name for defence in defences],
        }
        plan |= {"seed": seed, "source": source.describe() if source else None, "out": str(out)}
        if distributed.is_main():
            click.echo(json.dumps(plan, indent=1))
        return
    folder = run_folder or out.with_name(out.name + ".run")
    started = time.monotonic()
    try:
        uap = craft(
            model,
            method=method,
            source=source,
            eps=bound,
            norm=norm,
            seed=seed,
            budget=budget,
            target=target,
            tile=tile,
            stop_on=images(f"driven:{stop_on}" if stop_on else None),
            through=defences,
            folder=folder,
            restart=restart,
            callback=progress if distributed.is_main() else None,
            **params,
        )
    finally:
        progress.close()
    if not distributed.is_main():
        return
    uap.save(out)
    cost = uap.card["cost"]
    say(
        f"{out}: {method}, data class {uap.data_class}, {norm} {eps}, {cost['image_gradients']} image-gradients, "
        f"{time.monotonic() - started:.0f} s here; log in {folder}"
    )
    click.echo(str(out))


def _filter_setting(method: Method, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """--proxy-filter as the parameter that it stands for."""
    from ..attacks import methods

    if "proxy_filter" not in method.parameters():
        having = ", ".join(other for other, known in methods().items() if "proxy_filter" in known.parameters())
        raise UsageError(f"--proxy-filter chooses among a GAN's samples, and {method.name} has none (has: {having})")
    if params.get("proxy_filter", name) != name:
        raise UsageError(f"--proxy-filter {name} and --set proxy_filter={params['proxy_filter']} differ; give one")
    return {"proxy_filter": name}
