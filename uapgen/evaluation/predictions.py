"""Every prediction of an evaluation in one file.

An .npz: each array keeps its axes and types, numpy reads it without parsing and nothing else has to be installed. A CSV
would repeat the name of each image for every perturbation, defence and victim, or need a column for each of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..perturbation import Perturbation
from ..runtime import atomic_write
from .results import Evaluation


def write_predictions(path: Path, uaps: Sequence[Perturbation], evaluations: Sequence[Evaluation]) -> None:
    """Writes index, name (N,); label, clean (victims, N); adv (victims, uaps, N), classes int64; -1 where a label is
    unknown or an image was not read. Behind the `defences`: defended_clean (victims, defences, N) and defended_adv
    (victims, defences, uaps, N). `uaps` are hashes.

    Raises UapgenError when the file cannot be written.
    """
    found = [evaluation.predictions for evaluation in evaluations]
    files = found[0].files
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            index=np.arange(len(files)),
            name=np.array(files),
            label=np.stack([p.labels.numpy() for p in found]),
            clean=np.stack([p.clean.numpy() for p in found]),
            adv=np.stack([p.adv.numpy() for p in found]),
            defences=np.array(found[0].defences, dtype=np.str_),
            defended_clean=np.stack([p.defended_clean.numpy() for p in found]),
            defended_adv=np.stack([p.defended_adv.numpy() for p in found]),
            victims=np.array([evaluation.victim["name"] for evaluation in evaluations]),
            uaps=np.array([uap.sha256 for uap in uaps]),
        )
