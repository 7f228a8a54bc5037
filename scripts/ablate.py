"""What each kind of proxy gives, and what the GAN and its regulariser add: `uapgen compare` on a list of cbgan's arms.

python scripts/ablate.py --data DIR --budget 2000 -o RUN      (half an hour on two CPU cores)

RUN is the folder of a comparison, and goes on as one: each arm is a method spec at equal image-gradients, and a row of
RUN/table.md. The arm on photographs (data class driven) needs --train-data and is left out without it.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from uapgen.cli.compare import assign
from uapgen.cli.options import parse_settings, say
from uapgen.compare import compare, parse_seeds
from uapgen.runtime import start_process
from uapgen.victims import load_victim

NO_GAN, GAN = "+gan=false", "+gan_from=0"
ARMS = {
    # The GAN left out, and other images to craft on.
    "gaussian": f"cbgan@gaussian{NO_GAN}",
    "jigsaw": f"cbgan@jigsaw{NO_GAN}",
    "dead-leaves": f"cbgan@dead-leaves{NO_GAN}",
    "procedural": f"cbgan{NO_GAN}",
    "photographs": f"cbgan@train{NO_GAN}+pool=0",
    # Without one part of what remains.
    "no-generator": f"cbgan{NO_GAN}+generator_share=0",
    "no-crops": f"cbgan{NO_GAN}+crops=0",
    "activation-alone": f"cbgan{NO_GAN}+activation=1+displacement=0",
    "displacement-alone": f"cbgan{NO_GAN}+activation=0+displacement=1",
    "features": f"cbgan{NO_GAN}+features=3",
    "no-agreement": f"cbgan{NO_GAN}+agreement=0",
    "all-layers": f"cbgan{NO_GAN}+start=0",
    "small-steps": f"cbgan{NO_GAN}+lr={5 / 255:.6f}",
    "cosine": f"cbgan{NO_GAN}+activation=0+displacement=0+agreement=0+logits=1",
    # The GAN at any budget: which of its losses does what.
    "gan-free": f"cbgan{GAN}+balance=0+confidence=0+statistics=0",
    "gan-plain": f"cbgan{GAN}+balance=0",
    "gan-w1": f"cbgan{GAN}+effective=false",
    "gan-no-statistics": f"cbgan{GAN}+statistics=0",
    "gan": f"cbgan{GAN}",
    "gan-alone": f"cbgan{GAN}+gan_weight=1",
    "gan-gold": f"cbgan{GAN}+proxy_filter=gold",
}
DRIVEN = ("photographs",)


def specs(names: list[str], settings: dict[str, str]) -> list[str]:
    """The arms' method specs; `settings` are parameters of all of them, before which an arm's own go."""
    return [
        ARMS[name] + "".join(f"+{key}={value}" for key, value in settings.items() if f"+{key}=" not in ARMS[name])
        for name in names
    ]


@click.command()
@click.option("--victim", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--transfer-victim", "transfer", multiple=True, help="Measured too; repeatable.")
@click.option("--weights", multiple=True, metavar="[SPEC=]FILE", help="Local weights of a victim; repeatable.")
@click.option("--data", required=True, help="Images to measure on.")
@click.option("--train-data", metavar="DIR", help="Photographs to craft on.")
@click.option("--limit", type=int)
@click.option("--budget", default="quick", show_default=True)
@click.option("--seeds", default="0..2", show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(ARMS)), help="Run these arms alone; repeatable.")
@click.option("--skip", multiple=True, type=click.Choice(list(ARMS)), help="Leave an arm out; repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of all arms; repeatable.")
@click.option("--threads", type=int)
@click.option("--out", "-o", type=click.Path(path_type=Path), required=True)
def main(
    victim: str,
    transfer: tuple[str, ...],
    weights: tuple[str, ...],
    data: str,
    train_data: str | None,
    limit: int | None,
    budget: str,
    seeds: str,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    settings: tuple[str, ...],
    threads: int | None,
    out: Path,
) -> None:
    names = [name for name in ARMS if name in (only or ARMS) and name not in skip]
    if train_data is None and (hungry := [name for name in names if name in DRIVEN]):
        if only:
            raise click.UsageError(f"{', '.join(hungry)}: give --train-data DIR")
        say(f"left out without --train-data DIR: {', '.join(hungry)}")
        names = [name for name in names if name not in DRIVEN]
    start_process(threads)
    files = assign("--weights", weights, [victim, *transfer])
    loaded = {spec: load_victim(spec, weights=files.get(spec)) for spec in (victim, *transfer)}
    compare(
        {victim: loaded.pop(victim)},
        specs(names, parse_settings(settings)),
        data,
        out,
        train_data=train_data,
        transfer_victims=loaded,
        budget=budget,
        seeds=parse_seeds(seeds),
        limit=limit,
        curve=0,
        say=say,
    )
    click.echo((out / "table.md").read_text(), nl=False)
    if not json.loads((out / "results.json").read_text())["complete"]:
        raise click.ClickException(f"some cells failed: see {out / 'table.md'}; the same command tries them again")


if __name__ == "__main__":
    main()
