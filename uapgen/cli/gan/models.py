"""`uapgen gan classifier`, `gan train`, `gan sample`: one classifier, one generator, its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from ..options import config_option, device_options, parse_settings, say, tensorboard_option
from ..progress import Progress
from .options import data_options, recipe_settings, test_data, training_data


@click.command("classifier")
@data_options
@click.option("--test", metavar="PATH", help="The test part, where --data names a path.")
@click.option("--no-test", is_flag=True, help="Do not measure the accuracy on the test part.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A field of the recipe; repeatable.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="RUN", help="State, log, result.")
@device_options
def classifier_command(**options: Any) -> None:
    """Train a ResNet on labelled data: long-tailed for the loop (--imbalance), balanced as an annotator.

    The recipe's defaults are the published ones: ResNet-32, focal loss, deferred re-weighting, 200 epochs. --set
    changes a field: depth, width, loss=ce|focal|ldam, deferred, epochs, batch, lr, momentum, weight_decay, warmup,
    decay_at, decays, pad, flip. The test part is measured once, at the end, and chooses nothing.

    \b
    uapgen gan classifier --data digits --size 16 --set depth=8 --set epochs=10 --set batch=32 -o annotator
    uapgen gan classifier --data cifar10 --imbalance 100 -o loop
    """
    from ...longtail import Recipe, train_classifier
    from ...longtail.classifier import FILE
    from ...runtime import ensure_writable, start_process
    from ...schema import make
    from ...victims.trained import classifier_header

    recipe = make(Recipe, recipe_settings(parse_settings(options["settings"])), "--set")
    start_process(options["threads"])
    out: Path = options["out"]
    ensure_writable(out / FILE)
    data = training_data(options)
    test = None if options["no_test"] else test_data(options, options["test"])
    say(f"{data.name}: {len(data)} images of {data.size[0]}x{data.size[1]}, classes {data.counts().tolist()}")
    progress = Progress()
    train_classifier(
        data,
        recipe,
        folder=out,
        test=test,
        seed=options["seed"],
        device=options["device"],
        precision=options["precision"],
        callback=lambda done, figures: progress("classifier", done, recipe.epochs, figures),
    )
    progress.close()
    if test is not None:
        measured = classifier_header(out / FILE)["test"]
        say(f"accuracy {100 * measured['accuracy']:.2f} % on the {measured['n']} images of {measured['data']}")
    click.echo(str(out / FILE))


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
def train_command(**options: Any) -> None:
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


@click.command("sample")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-n", "--samples", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@click.option("--label", type=int, metavar="CLASS", help="All of one class, from a conditional generator.")
@click.option("--by", type=click.Path(path_type=Path), metavar="FILE", help="Order the sheet by this classifier.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".png or .npz")
@device_options
def sample_command(
    run: Path,
    samples: int,
    label: int | None,
    by: Path | None,
    seed: int,
    out: Path,
    device: str,
    precision: str,
    offline: bool,
    threads: int | None,
) -> None:
    """Draw images from the generator of RUN (a run folder or its file).

    FILE.png is a sheet: row by row as drawn, or with --by ten samples of each class as that classifier sees them.
    FILE.npz holds images (N,H,W,3) uint8 and labels (N,) int64, which are -1 for a generator without labels.
    """
    import numpy as np
    import torch

    from ...gan import save_grid
    from ...longtail.generator import load_generator
    from ...longtail.metrics.judge import by_class
    from ...runtime import atomic_write, start_process
    from .score import load_annotator

    if out.suffix not in (".png", ".npz"):
        raise UsageError(f"-o {out}: expected a name that ends in .png or .npz")
    start_process(threads)
    images, labels = load_generator(run, device=device).sample(samples, seed=seed, label=label)
    if out.suffix == ".png":
        if by:
            save_grid(by_class(load_annotator(by, device, precision), images) / 255, out, columns=10)
        else:
            save_grid(images / 255, out)
    else:
        given: Any = torch.full((samples,), -1) if labels is None else labels
        with atomic_write(out) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, images=images.permute(0, 2, 3, 1).numpy(), labels=given.numpy())
    say(f"{samples} images of {images.shape[2]}x{images.shape[3]}, seed {seed}")
    click.echo(str(out))
