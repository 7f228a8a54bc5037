"""Training a GAN on labelled data, the generator as one file, and samples of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UapgenError, UsageError
from ..gan import Every, GeneratorNetwork, train_gan
from ..gan.sampling import Labels, latents_and_labels
from ..runfolder import RunFolder, load_state, save_state
from ..runtime import resolve_device, rng
from ..victims import Victim
from .data import LabelledImages
from .gan_recipe import GanRecipe, check_classifier, extra_losses, sum_of

Network = TypeVar("Network", bound=nn.Module)
KIND = "uapgen generator 1"
FILE = "generator.safetensors"


@dataclass(frozen=True)
class TrainedGenerator:
    """`network` in eval mode, and the `header` of its file: recipe, data, counts, seed."""

    network: GeneratorNetwork
    header: dict[str, Any]

    @property
    def num_classes(self) -> int:
        """K of the data that it was trained on; `network.num_classes` is None without labels."""
        return len(self.header["trained_on"]["counts"])

    @property
    def counts(self) -> Tensor:
        """Training images of each class, (K,) int64."""
        return torch.tensor(self.header["trained_on"]["counts"])

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int = 0, label: int | None = None, batch: int = 256
    ) -> tuple[Tensor, Tensor | None]:
        """n images (n,3,H,W) uint8 on the CPU, and the labels (n,) int64 that they were made for, None without labels.

        Labels take turns over the classes unless `label` is given. Equal seeds give equal images at any n that is as
        large. Raises UsageError for a label that the generator does not have.
        """
        device = next(self.network.parameters()).device
        asked: Labels = "turns" if label is None else label
        z, labels = latents_and_labels(self.network, n, rng(seed, "samples"), "cpu", labels=asked)
        parts = []
        for start in range(0, n, batch):
            chunk = None if labels is None else labels[start : start + batch].to(device)
            x = self.network(z[start : start + batch].to(device), chunk)
            parts.append((255 * x).round().clamp(0, 255).byte().cpu())
        return torch.cat(parts), labels


def train_generator(
    data: LabelledImages,
    recipe: GanRecipe | None = None,
    *,
    folder: RunFolder | str | Path,
    classifier: Victim | None = None,
    real: Callable[[int, torch.Generator], tuple[Tensor, Tensor]] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    save_every: int = 0,
    log_every: int = 0,
    grid_every: int = 0,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainedGenerator:
    """Trains a GAN on `data` and returns the moving average of its generator, also as FILE in `folder`.

    classifier: in the loop, for `recipe.balance`; of as many classes as the data. real: draws the labelled images that
    the discriminator sees, default `data.batch`; the options of `folder` must then say what it is. save_every,
    log_every, grid_every: in images, 0 for only the end (logs: twenty times a run). The same call again continues from
    the last save.
    Warns of a recipe whose class weights never change. Raises UsageError for one that cannot be, UapgenError for a
    class without images and what `train_gan` raises.
    """
    recipe = recipe or GanRecipe()
    recipe.check()
    if reason := recipe.never_weighs():
        warnings.warn(reason, stacklevel=2)
    data.require_every_class()
    height, width = data.size
    if height != width:
        raise UsageError(f"{data.name}: images are {height}x{width}; GANs take square ones, give a size")
    check_classifier(data, recipe, classifier)
    if not isinstance(folder, RunFolder):
        folder = RunFolder(folder, options(data, recipe, classifier, seed))
    device, counts = resolve_device(device), data.counts()
    generator = fast_layout(recipe.generator(counts, height, seed).to(device))
    draw = real or data.to(device).batch
    extra = extra_losses(data, recipe, classifier, generator, seed)
    network = train_gan(
        generator,
        fast_layout(recipe.discriminator(data.num_classes, height, seed)),
        draw if recipe.labels != "none" else lambda n, draws: draw(n, draws)[0],
        recipe.training(),
        folder=folder,
        images=recipe.images,
        extra_loss=sum_of(extra),
        state=extra,
        every=Every(log_every or max(recipe.images // 20, 1), save_every, grid_every),
        seed=seed,
        device=device,
        callback=callback,
    )
    header = {"kind": KIND, "size": height, "seed": seed, "recipe": asdict(recipe), **_about(data, classifier)}
    save_state(folder.path / FILE, network.state_dict(), header)
    return TrainedGenerator(network, header)


def fast_layout(network: Network) -> Network:
    """Weights with channels last, in place: convolutions run faster so on CPUs and GPUs (`scripts/bench gan`)."""
    return network.to(memory_format=torch.channels_last)


def load_generator(path: str | Path, *, device: str | torch.device = "auto") -> TrainedGenerator:
    """A generator that `train_generator` wrote; `path` is the file or its run folder.

    Raises UapgenError for another file.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise UapgenError(f"{path} is not there; expected the {FILE} of a finished 'uapgen gan train'")
    tensors, header = load_state(path)
    if header.get("kind") != KIND:
        raise UapgenError(f"{path} is no generator of uapgen (kind {header.get('kind')!r}); expected {KIND!r}")
    try:
        recipe, counts = GanRecipe(**header["recipe"]), torch.tensor(header["trained_on"]["counts"])
        network = recipe.generator(counts, header["size"], header["seed"])
        network.load_state_dict(tensors)
    except Exception as error:  # whatever a network's constructor says to numbers that are none
        reason = " ".join(str(error).split())[:200]
        raise UapgenError(f"{path} is damaged: its header and its weights make no generator ({reason})") from error
    network = fast_layout(network.to(resolve_device(device)))  # as in training: another layout rounds differently
    return TrainedGenerator(network.eval().requires_grad_(False), header)


def options(data: LabelledImages, recipe: GanRecipe, classifier: Victim | None, seed: int) -> dict[str, Any]:
    """What decides a run's bytes, for its folder."""
    return {"seed": seed, **asdict(recipe), **_about(data, classifier if recipe.balance else None)}


def _about(data: LabelledImages, classifier: Victim | None) -> dict[str, Any]:
    seen = {"data": data.name, "sha256": data.sha256, "n": len(data), "counts": data.counts().tolist()}
    loop = {"name": classifier.name, "weights_sha256": classifier.weights_sha256} if classifier else None
    return {"trained_on": seen, "classifier": loop}
