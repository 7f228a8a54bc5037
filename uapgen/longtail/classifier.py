"""Training the classifier in the loop, or the annotator: ResNets for small images, on balanced or long-tailed data.

The defaults are the published recipe: Cao et al., 2019 (schedule, deferred re-weighting), with the focal loss that
Rangwani et al., 2021, used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from ..errors import UapgenError
from ..runfolder import RunFolder, load_optimizer_tensors, optimizer_tensors
from ..runtime import resolve_device, resolve_precision, rng
from ..victims import Victim
from .augment import crop, draw_crops
from .classifier_file import finish, header_for
from .data import LabelledImages
from .imbalance_losses import classification_loss, effective_weights
from .recipe import Recipe
from .resnet import CifarResNet

FILE, STATE = "classifier.safetensors", "training"


def train_classifier(
    data: LabelledImages,
    recipe: Recipe | None = None,
    *,
    folder: RunFolder | str | Path,
    test: LabelledImages | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    save_every: int = 10,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> Victim:
    """Trains a ResNet on all of `data` and returns it, frozen, with its normalisation inside.

    folder: of this run alone; holds FILE at the end. The same call again continues from the last save, which is made
        every `save_every` epochs, and ends, on a CPU, in the same bytes.
    test: measured once, at the end, for the file's header. It chooses nothing: the last epoch is the result.
    callback: after each epoch, with how many are done and that epoch's rate, loss and training accuracy.

    Raises UsageError for a recipe that cannot be, UapgenError for a class without images, a loss that is not finite
    (the last save stays), and a folder that holds another run.
    """
    recipe = recipe or Recipe()
    data.require_every_class()
    recipe.check()
    device = resolve_device(device)
    if not isinstance(folder, RunFolder):
        folder = RunFolder(folder, {"seed": seed, "data": data.name, "data_sha256": data.sha256, **asdict(recipe)})
    head = "cosine" if recipe.loss == "ldam" else "linear"
    net = CifarResNet(recipe.depth, data.num_classes, recipe.width, head=head, seed=seed)
    net = net.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    mean, std = channel_statistics(data)
    step = _Step(data.to(device), recipe, mean, std, resolve_precision(precision, device, net) == "bf16")

    done = _load(folder, net, optimizer)
    while done < recipe.epochs:
        optimizer.param_groups[0]["lr"] = recipe.rate(done)
        stats = {"lr": recipe.rate(done), **step.epoch(net, optimizer, done, rng(seed, "classifier", done))}
        done += 1
        folder.log(epoch=done, **stats)
        if done % save_every == 0 or done == recipe.epochs:
            _save(folder, net, optimizer, done)
        if callback:
            callback(done, stats)
    header = header_for(net, data, mean, std, {"seed": seed, **asdict(recipe)})
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
        self.loss, self.weights = classification_loss(recipe.loss, counts), effective_weights(counts)
        self.flip = data.flips if recipe.flip is None else recipe.flip

    def epoch(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, draws: torch.Generator
    ) -> dict[str, float]:
        n, device, pad = len(self.data), self.mean.device, self.recipe.pad
        order = torch.randperm(n, generator=draws).to(device)
        crops = draw_crops(n, draws, pad=pad, flip=self.flip, device=device)
        weights = self.weights if self.recipe.reweights(epoch) else None
        totals = torch.zeros(2, device=device)
        net.train()
        for start in range(0, n, self.recipe.batch):
            stop = min(start + self.recipe.batch, n)
            pick = order[start:stop]
            x = crop(self.data.images[pick], crops.part(start, stop), pad=pad).float().div_(255)
            x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            labels = self.data.labels[pick]
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                logits = net(x)
            loss = self.loss(logits, labels, weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():  # summed on the device: no step waits for a number
                totals += torch.stack([loss * (stop - start), (logits.argmax(1) == labels).sum()])
        mean_loss, accuracy = (totals / n).tolist()
        if not math.isfinite(mean_loss):
            raise UapgenError(
                f"the classifier's loss became {mean_loss} in epoch {epoch + 1}; start again with a lower learning rate"
            )
        return {"loss": mean_loss, "accuracy": accuracy}


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
