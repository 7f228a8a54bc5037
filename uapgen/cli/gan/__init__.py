"""uapgen gan: generative networks on labelled, long-tailed data."""

from __future__ import annotations

import click

from .. import LazyGroup

VERBS = {
    "train": "Train a GAN on labelled data, class-balancing or not.",
    "sample": "Draw images from a trained generator.",
    "score": "Measure a generator: class KL, Fréchet distance or FID, ...",
    "classifier": "Train a classifier: for the loop, or as annotator.",
    "bench": "Dataset x imbalance x method x seed, from one file.",
    "gold": "GOLD: re-weighting, rejection sampling, active learning.",
    "classify": "Classifiers trained on synthetic data of one or several GANs.",
}


HOMES = dict.fromkeys(("bench", "gold", "classify"), "benchmarks")
HOMES |= dict.fromkeys(("classifier", "train", "sample"), "models")


@click.command(cls=LazyGroup, verbs=VERBS, homes=HOMES, package=__name__)
def command() -> None:
    """Train and score GANs on long-tailed data.

    \b
    uapgen gan bench --preset digits -o digits
    uapgen gan classifier --data digits --imbalance 100 -o loop
    uapgen gan train --data digits --imbalance 100 --classifier loop --set balance=10 -o run
    uapgen gan sample run -o samples.png
    uapgen gan classifier --data digits -o annotator
    uapgen gan score run --annotator annotator
    """
