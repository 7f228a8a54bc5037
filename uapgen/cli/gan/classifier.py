"""uapgen gan classifier"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import device_options, parse_settings, say
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
def command(**options: Any) -> None:
    """Train a ResNet on labelled data: long-tailed for the loop (--imbalance), balanced as an annotator.

    The recipe's defaults are the published ones: ResNet-32, focal loss, deferred re-weighting, 200 epochs. --set
    changes a field: depth, width, loss=ce|focal|ldam, deferred, epochs, batch, lr, momentum, weight_decay, warmup,
    decay_at, decays, pad, flip. The test part is measured once, at the end, and chooses nothing.

    \b
    uapgen gan classifier --data digits --size 16 --set depth=8 --set epochs=10 --set batch=32 -o annotator
    uapgen gan classifier --data cifar10 --imbalance 100 -o loop
    """
    from ...longtail import Recipe, train_classifier
    from ...longtail.classifier.training import FILE
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
