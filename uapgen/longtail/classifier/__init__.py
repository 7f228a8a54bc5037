"""Training the classifier in the loop, or the annotator: ResNets for small images, on balanced or long-tailed data.

The defaults are the published recipe: Cao et al., 2019 (schedule, deferred re-weighting), with the focal loss that
Rangwani et al., 2021, used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import UapgenError
from ...images.warp import crop, draw_crops
from ...runfolder import RunFolder, load_optimizer_tensors, optimizer_tensors
from ...runtime import resolve_device, resolve_precision, rng
from ...victims import Victim
from ...victims.trained import CifarResNet, as_victim
from ..data import LabelledImages, Stream
from .file import accuracy, confusion, finish, header_for
from .recipe import Recipe, classification_loss, effective_weights

FILE, STATE = "classifier.safetensors", "training"


def train_classifier(
    data: LabelledImages | Stream,
    recipe: Recipe | None = None,
    *,
    folder: RunFolder | str | Path,
    test: LabelledImages | None = None,
    test_every: int = 0,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    save_every: int = 10,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> Victim:
    """Trains a ResNet on all of `data` and returns it, frozen, with its normalisation inside.

    data: images to go through in every epoch, cropped and mirrored as the recipe says; or a stream of fresh ones,
        which are taken as they come.
    folder: of this run alone; holds FILE at the end. The same call again continues from the last save, which is made
        every `save_every` epochs, and ends, on a CPU, in the same bytes.
    test: measured at the end, for the file's header, and every `test_every` epochs (0: never) for the log, as
        `test_accuracy`. It chooses nothing: the last epoch is the result.
    callback: after each epoch, with how many are done and what was logged.

    Raises UsageError for a recipe that cannot be, UapgenError for a class without images where the recipe weighs
    classes, a loss that is not finite (the last save stays), and a folder that holds another run.
    """
    recipe = recipe or Recipe()
    stream = data if isinstance(data, Stream) else None
    data = data.head if isinstance(data, Stream) else data
    recipe.check()
    if recipe.weighs_classes:
        data.require_every_class()
    device = resolve_device(device)
    fresh = {"fresh_images": stream.images} if stream else {}
    if not isinstance(folder, RunFolder):
        of = {"seed": seed, "data": data.name, "data_sha256": data.sha256}
        folder = RunFolder(folder, {**of, **asdict(recipe), **fresh})
    last = "cosine" if recipe.loss == "ldam" else "linear"
    net = CifarResNet(recipe.depth, data.num_classes, recipe.width, head=last, seed=seed)
    net = net.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    mean, std = channel_statistics(data)
    step = _Step(data.to(device), recipe, mean, std, resolve_precision(precision, device, net) == "bf16")
    header = header_for(net, data, mean, std, {"seed": seed, **asdict(recipe), **fresh})

    done = _load(folder, net, optimizer)
    while done < recipe.epochs:
        optimizer.param_groups[0]["lr"] = recipe.rate(done)
        draws = rng(seed, "classifier", done)
        batches = stream.batches(done) if stream else step.batches(draws)
        stats = {"lr": recipe.rate(done), **step.epoch(net, optimizer, done, batches)}
        done += 1
        if test is not None and test_every and (done % test_every == 0 or done == recipe.epochs):
            matrix = confusion(as_victim(net, header, device, precision), test)
            stats["test_accuracy"] = accuracy(matrix)
        folder.log(epoch=done, **stats)
        if done % save_every == 0 or done == recipe.epochs:
            _save(folder, net, optimizer, done)
        if callback:
            callback(done, stats)
    return finish(folder.path / FILE, net, header, test, device=device, precision=precision)


class _Step:
    """One epoch over the data; what does not change from one to the next."""

    def __init__(
        self, data: LabelledImages, recipe: Recipe, mean: tuple[float, ...], std: tuple[float, ...], bf16: bool
    ) -> None:
        device = data.images.device
        self.data, self.recipe, self.bf16 = data, recipe, bf16
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))
        counts = data.counts().to(device)
        self.loss = classification_loss(recipe.loss, counts)
        self.weights = effective_weights(counts) if recipe.deferred else None
        self.flip = data.flips if recipe.flip is None else recipe.flip

    def batches(self, draws: torch.Generator) -> Iterable[tuple[Tensor, Tensor]]:
        """The data once, in random order, cropped: (B,3,H,W) uint8 and labels (B,)."""
        n, pad = len(self.data), self.recipe.pad
        order = torch.randperm(n, generator=draws).to(self.mean.device)
        crops = draw_crops(n, draws, pad=pad, flip=self.flip, device=self.mean.device)
        for start in range(0, n, self.recipe.batch):
            stop = min(start + self.recipe.batch, n)
            pick = order[start:stop]
            yield crop(self.data.images[pick], crops.part(start, stop), pad=pad), self.data.labels[pick]

    def epoch(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        epoch: int,
        batches: Iterable[tuple[Tensor, Tensor]],
    ) -> dict[str, float]:
        n, device = 0, self.mean.device
        weights = self.weights if self.recipe.reweights(epoch) else None
        totals = torch.zeros(2, device=device)
        net.train()
        for images, held in batches:
            x = ((images.to(device).float().div_(255) - self.mean) / self.std).contiguous(
                memory_format=torch.channels_last
            )
            labels = held.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                logits = net(x)
            loss = self.loss(logits, labels, weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n += len(x)
            with torch.no_grad():  # summed on the device: no step waits for a number
                totals += torch.stack([loss * len(x), (logits.argmax(1) == labels).sum()])
        mean_loss, share = (totals / n).tolist()
        if not math.isfinite(mean_loss):
            raise UapgenError(
                f"the classifier's loss became {mean_loss} in epoch {epoch + 1}; start again with a lower learning rate"
            )
        return {"loss": mean_loss, "accuracy": share}


def channel_statistics(data: LabelledImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, in [0,1], to 4 digits; the latter at least 0.001."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(3):
        share = torch.bincount(data.images[:, channel].flatten().cpu(), minlength=256).double()
        share /= share.sum()
        mean = float((share * levels).sum())
        means.append(round(mean, 4))
        deviations.append(max(round(float((share * (levels - mean).square()).sum().sqrt()), 4), 1e-3))
    return tuple(means), tuple(deviations)


def _save(folder: RunFolder, net: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    broken = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    if broken:
        raise UapgenError(f"{broken} is not finite after epoch {epoch}; start again with a lower learning rate")
    folder.save(STATE, tensors | optimizer_tensors(optimizer, "sgd"), {"epoch": epoch})


def _load(folder: RunFolder, net: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restores the last save and returns how many epochs were done; a new run saves its start."""
    held = folder.load(STATE)
    if held is None:
        _save(folder, net, optimizer, 0)
        return 0
    tensors, meta = held
    try:
        net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        load_optimizer_tensors(optimizer, "sgd", tensors)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UapgenError(f"{folder.path} holds another classifier; choose another folder") from error
    return int(meta["epoch"])
