"""Features of images for the distances, with what is needed to name a distance rightly and to repeat it.

A Fréchet distance is an FID only with the FID's own network and resize (`inception.py`). In the features of any other
classifier, which is what suits digits or clothes, it is called Frechet-annotator here, and never FID.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UsageError
from ...victims import Victim
from .class_kl import class_counts
from .distances import Moments, frechet_distance

Images = Tensor | Iterable[Tensor]
ANNOTATOR = "Frechet-annotator"


@dataclass(frozen=True)
class Features:
    """What one network saw in N images.

    values (N,F) float32 and logits (N,K), None without a classifier, on the CPU; `distance`: what a Fréchet distance in
    these features is called; `network`, `weights_sha256`, `resize`: whose features, and how images came to its size.
    """

    values: Tensor
    logits: Tensor | None
    distance: str
    network: str
    weights_sha256: str
    resize: str

    def __len__(self) -> int:
        return len(self.values)

    def where(self, keep: Tensor) -> Features:
        """Those images for which keep (N,) bool is true."""
        return replace(self, values=self.values[keep], logits=None if self.logits is None else self.logits[keep])


def batches(images: Images, batch_size: int) -> Iterator[Tensor]:
    """Float batches (B,3,H,W) in [0,1], rounded to 8 bits as a saved image is; grey is replicated.

    images: (N,1 or 3,H,W), uint8 or float in [0,1], or an iterable of such batches, so that 50,000 samples need not lie
    in memory. Raises UsageError for other shapes and for values outside [0,1].
    """
    for part in [images] if isinstance(images, Tensor) else images:
        if part.ndim != 4 or part.shape[1] not in (1, 3):
            raise UsageError(f"images of shape {tuple(part.shape)}; expected (N,3,H,W) in [0,1] or uint8")
        for chunk in part.split(batch_size):
            x = chunk.float() / 255 if chunk.dtype == torch.uint8 else chunk.float()
            if not (x.min() >= 0 and x.max() <= 1):
                found = f"{float(x.min()):.3g} to {float(x.max()):.3g}"
                raise UsageError(f"pixels range from {found}; expected [0,1] (map [-1,1] by (x + 1) / 2)")
            yield (255 * x).round().div(255).expand(-1, 3, -1, -1)


@torch.no_grad()
def annotator_features(victim: Victim, images: Images, *, batch_size: int = 256) -> Features:
    """Penultimate features and logits of a classifier; images of another size are resized, and the result says so.

    Load the annotator with precision="fp32": bf16 features have three digits, and scores then vary by machine.
    """
    size = victim.input_size[1:]
    values, logits, resize = [], [], "none"
    for x in batches(images, batch_size):
        x = x.to(victim.device)
        if x.shape[2:] != size:
            resize = f"bilinear, antialiased, {x.shape[2]}x{x.shape[3]} to {size[0]}x{size[1]}"
            x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
        seen = victim.probe(x)
        values.append(seen.features.cpu())
        logits.append(seen.logits.cpu())
    if not values:
        raise UsageError("no images to take features of")
    return Features(torch.cat(values), torch.cat(logits), ANNOTATOR, victim.name, victim.weights_sha256, resize)


def check_same_network(a: Features, b: Features) -> None:
    """Raises UsageError unless two sets of features come from the same weights and are called the same."""
    if (a.weights_sha256, a.distance) != (b.weights_sha256, b.distance):
        raise UsageError(
            f"features of {a.network} ({a.weights_sha256[:12]}) and of {b.network} ({b.weights_sha256[:12]}) cannot be "
            "compared; take both from one network"
        )


def halves(train_counts: Tensor) -> dict[str, Tensor]:
    """Masks (K,) of the classes: `majority` the (K+1)//2 with the most training images, `minority` the others.

    For the published profiles, which fall with the class index, these are the lower and the upper half of the indices;
    ties go by index.
    """
    order = torch.sort(train_counts.cpu(), descending=True, stable=True).indices
    majority = torch.zeros(len(order), dtype=torch.bool)
    majority[order[: (len(order) + 1) // 2]] = True
    return {"majority": majority, "minority": ~majority}


def frechet_by_half(
    fake: Features, fake_labels: Tensor, real: Features, real_labels: Tensor, train_counts: Tensor
) -> dict[str, tuple[float | None, int, int]]:
    """(distance, n fake, n real) over `all` images and those of `majority` and `minority` classes.

    fake_labels: an annotator's argmax (or the condition) of each sample; real_labels: the reference's own. The distance
    is None where fewer than two images fall into a half, as they do when a generator has lost all its classes. Raises
    UsageError for labels that are not one an image, or outside the K classes of train_counts (K,).
    """
    check_same_network(fake, real)
    for features, labels in ((fake, fake_labels), (real, real_labels)):
        if int(class_counts(labels, len(train_counts)).sum()) != len(features):
            raise UsageError(f"{len(labels)} labels for {len(features)} images; expected one label an image")
    sets = {"all": torch.ones(len(train_counts), dtype=torch.bool), **halves(train_counts)}
    found: dict[str, tuple[float | None, int, int]] = {}
    for name, classes in sets.items():
        a, b = fake.values[classes[fake_labels.cpu()]], real.values[classes[real_labels.cpu()]]
        enough = min(len(a), len(b)) >= 2
        found[name] = (frechet_distance(Moments.of(a), Moments.of(b)) if enough else None, len(a), len(b))
    return found
