"""uapgen gan sample"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from ..options import device_options, say


@click.command("sample")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-n", "--samples", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@click.option("--label", type=int, metavar="CLASS", help="All of one class, from a conditional generator.")
@click.option("--by", type=click.Path(path_type=Path), metavar="FILE", help="Order the sheet by this classifier.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".png or .npz")
@device_options
def command(
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
