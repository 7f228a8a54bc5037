"""uapgen gan train"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config import config_option
from ..options import device_options, parse_settings, say, tensorboard_option
from ..progress import Progress
from .options import data_options, recipe_settings, training_data


@click.command("train")
@config_option("gan", "train")
@data_options
@click.option(
    "--classifier", type=click.Path(path_type=Path), metavar="FILE", help="In the loop, for balance; or its run folder."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A field of the recipe; repeatable.")
@click.option("--save-every", type=click.IntRange(min=0), default=256_000, show_default=True, metavar="IMAGES")
@click.option("--grid-every", type=click.IntRange(min=0), default=0, metavar="IMAGES", help="Sheets while training.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="RUN", help="State, log, result.")
@tensorboard_option
@device_options
def command(**options: Any) -> None:
    """Train a GAN on labelled data.

    The recipe's defaults are the published CIFAR-10 baseline: SNDCGAN, relativistic loss, 100,000 steps of 256 images.
    --set changes a field: network=sndcgan|resgan|biggan, labels=none|auxiliary|projection, loss=rsgan|ragan|hinge|ns,
    width, latent_dim, images, batch, lr, lr_d, beta1, beta2, d_steps, augment, precision=fp32|bf16, ema_halflife,
    ema_start; balance=WEIGHT with --classifier is the class-balancing regulariser (effective, window, alpha,
    first_window), gsr group spectral regularisation, noise that of class embeddings. An interrupted run goes on when
    the same command is run again; under torchrun the batch is shared.

    \b
    uapgen gan train --data digits --imbalance 100 --size 16 --classifier loop -o run \\
        --set balance=10 --set width=16 --set images=40000 --set batch=32 --set lr=1e-3 --set window=1600
    """
    from ...distributed import finish, init
    from ...longtail.gan_recipe import GanRecipe
    from ...longtail.generator import FILE, train_generator
    from ...runtime import ensure_writable, resolve_device, start_process
    from ...schema import make
    from .score import load_annotator

    recipe = make(GanRecipe, recipe_settings(parse_settings(options["settings"])), "--set")
    progress = Progress(options["tensorboard"])
    start_process(options["threads"])
    device = resolve_device(options["device"])
    init(device)
    out: Path = options["out"]
    ensure_writable(out / FILE)
    data = training_data(options)
    say(f"{data.name}: {len(data)} images of {data.size[0]}x{data.size[1]}, classes {data.counts().tolist()}")
    classifier = load_annotator(options["classifier"], device, "auto") if options["classifier"] else None
    train_generator(
        data,
        recipe,
        folder=out,
        classifier=classifier,
        seed=options["seed"],
        device=device,
        save_every=options["save_every"],
        grid_every=options["grid_every"],
        callback=lambda done, figures: progress("gan", done, recipe.images, figures),
    )
    progress.close()
    finish()
    say(f"log and state in {out}; 'uapgen gan sample {out}' draws from it")
    click.echo(str(out / FILE))
