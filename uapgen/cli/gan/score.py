"""uapgen gan score"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from ..options import device_options, say
from .options import data_options, test_data

if TYPE_CHECKING:
    import torch

    from ...victims import Victim


@click.command("score")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--annotator", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Labels the samples.")
@click.option("-n", "--samples", type=click.IntRange(min=2), default=10_000, show_default=True, metavar="N")
@click.option("--test", metavar="PATH", help="The real images, where --data names a path.")
@click.option("--inception", type=click.Path(path_type=Path), metavar="FILE", help="Weights of FID's network.")
@click.option("--cas", is_flag=True, help="Also train a classifier on the samples and test it on real images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the samples.")
@click.option("--histogram", type=click.Path(path_type=Path), metavar="PNG", help="Draw the classes of the samples.")
@click.option("--json", "json_file", metavar="FILE|-", help="All figures with their terms.")
@data_options
@device_options
def command(**options: Any) -> None:
    """Measure the generator of RUN: class KL to uniform, Fréchet distance, precision and recall, MS-SSIM.

    --annotator is a classifier trained on balanced data ('uapgen gan classifier'), never the one that was in the loop.
    Distances are to the test part of --data. Without --inception they are in the annotator's features and are no FID.

    \b
    uapgen gan score run --annotator annotator --data digits --size 16 --json -
    """
    from ...longtail.classifier.recipe import Recipe
    from ...longtail.generator import load_generator
    from ...longtail.metrics import draw_histogram, load_inception
    from ...longtail.metrics.judge import Judge
    from ...runtime import resolve_device, start_process

    start_process(options["threads"])
    device = resolve_device(options["device"])
    trained = load_generator(options["run"], device=device)
    annotator = load_annotator(options["annotator"], device, "fp32")
    loop = trained.header["classifier"]
    if loop and loop["weights_sha256"] == annotator.weights_sha256:
        raise UsageError(f"{options['annotator']} trained this generator; annotate with an independent classifier")
    if warning := unbalanced(options["annotator"]):
        say(f"warning: {warning}")
    options["size"] = options["size"] or trained.header["size"]
    inception = load_inception(options["inception"], device=device) if options["inception"] else None
    judge = Judge(
        annotator, test_data(options, options["test"]), inception, Recipe(epochs=30) if options["cas"] else None
    )
    images, labels = trained.sample(options["samples"], seed=options["seed"])
    figures = judge.score(images, labels, trained.counts)
    if options["histogram"]:
        import torch

        made = torch.tensor(figures["kl"]["histogram"])
        draw_histogram({"training images": trained.counts, "samples": made}, options["histogram"])
    result = {"generator": trained.header, "seed": options["seed"], "scores": figures}
    if options["json_file"]:
        _write(options["json_file"], json.dumps(result, indent=1))
    if options["json_file"] != "-":
        _print(figures)


def load_annotator(path: Path, device: str | torch.device, precision: str) -> Victim:
    """A classifier file, or the folder of the run that made it."""
    from ...longtail.classifier import FILE
    from ...victims.trained import load_classifier

    return load_classifier(path / FILE if path.is_dir() else path, device=device, precision=precision)


def unbalanced(path: Path) -> str | None:
    """Why a classifier should not annotate, if it should not."""
    from ...longtail.classifier import FILE
    from ...longtail.classifier.file import balanced
    from ...victims.trained import classifier_header

    header = classifier_header(path / FILE if path.is_dir() else path)
    if not header or balanced(header):
        return None
    on = header["trained_on"]
    return f"the annotator was trained on {on['data']} at imbalance {on['imbalance']:g}; use one of balanced data"


def _write(file: str, text: str) -> None:
    from ...runtime import atomic_write

    if file == "-":
        click.echo(text)
        return
    with atomic_write(file) as temporary:
        temporary.write_text(text + "\n")


def _print(figures: dict[str, dict[str, Any]]) -> None:
    width = max(map(len, figures))
    for name, figure in figures.items():
        value = "-" if figure["value"] is None else f"{figure['value']:.4f}"
        against = f" against {figure['n_reference']} of {figure['reference']}" if figure["n_reference"] else ""
        click.echo(f"{name:<{width}}  {value:>10}  n {figure['n']}{against}")
