"""Universal adversarial training of a copy of the victim, and its state on disk: weights, optimiser, delta."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UapgenError, UsageError
from ..images.sets import ImageSet
from ..perturbation import Perturbation
from ..runfolder import RunFolder, load_optimizer_tensors, optimizer_tensors
from ..victims import Victim
from .attack import Settings, ascend, batches, pixels, split, targets


@dataclass(frozen=True)
class Hardened:
    """The trained victim (a copy; the one given is as it was), the last delta, and which images were for what."""

    victim: Victim
    delta: Perturbation
    trained_on: ImageSet
    held_out: ImageSet

    @property
    def labelled(self) -> int:
        """How many of the images trained on had labels; others got the original victim's own clean predictions."""
        return sum(label >= 0 for label in self.trained_on.labels)


def harden(
    victim: Victim,
    images: ImageSet,
    settings: Settings,
    *,
    folder: str | Path,
    restart: bool = False,
    save_every: int = 50,
    workers: int | None = None,
    callback: Callable[[int, dict[str, float]], None] | None = None,
) -> Hardened:
    """Trains a copy of `victim` on `images` (opened with `victim.transform`), less a share that is held out.

    The state is saved in `folder` every `save_every` steps, and the same call, or one with more steps, goes on from
    there; on a CPU it ends in the bytes of a run that was never interrupted. `callback(done, stats)` follows each step.

    Raises UsageError for a victim without trainable weights, fewer than two images and a folder of another run;
    UapgenError when a loss or a weight is not finite (the last good state stays in `folder`), and for broken images.
    """
    student = trainable_copy(victim, settings.update_batch_norm)
    train, held_out = split(images, settings.held_out, settings.seed)
    of = {"victim": victim.describe(), "precision": victim.precision, "images": images.list_sha256, **asdict(settings)}
    del of["steps"]  # nothing else depends on it: a run may go on further, or end at its last save
    run = RunFolder(folder, of, restart=restart)
    parameters = list(student.module.parameters())
    optimizer = torch.optim.SGD(parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    delta, done = load(run, student, optimizer)
    if done > settings.steps:
        raise UsageError(f"{run.path} has {done} steps behind it and {settings.steps} were asked for; give --restart")
    labels = torch.tensor(train.labels, device=victim.device)
    corrupt: set[tuple[int, str]] = set()
    while done < settings.steps:
        until = min(settings.steps, (done // save_every + 1) * save_every)
        for batch in batches(train, settings, done, until, workers):
            corrupt.update(batch.corrupt)
            train.check_corrupt(sorted(corrupt))
            done += 1
            if batch.images is None:
                continue
            x = pixels(batch.images, victim)
            classes = targets(victim, x, labels[batch.positions.to(victim.device)])
            delta, stats = alternate(student, optimizer, x, classes, delta, settings)
            if not math.isfinite(stats["loss_before"] + stats["loss"]):
                raise diverged(run, f"the loss became {stats['loss']} in step {done}")
            run.log(step=done, **stats)
            if callback:
                callback(done, stats)
        save(run, student, optimizer, delta, done)
    return Hardened(_wrapped(student), as_perturbation(delta, victim, train, settings), train, held_out)


def alternate(
    student: Victim, optimizer: torch.optim.Optimizer, x: Tensor, classes: Tensor, delta: Tensor, settings: Settings
) -> tuple[Tensor, dict[str, float]]:
    """`ascend` on delta (1,3,H,W), then one step of the weights down the same loss. Returns the new delta and both
    losses, each from before its step.
    """
    delta, before = ascend(student, x, classes, delta, settings)
    loss = functional.cross_entropy(student((x + delta).clamp(0, 1)), classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return delta, {"loss_before": before.item(), "loss": loss.item()}


def trainable_copy(victim: Victim, update_batch_norm: bool = False) -> Victim:
    """The same network with weights of its own that take gradients, in eval mode (no dropout); batch norm keeps its
    statistics unless `update_batch_norm`. Raises UsageError for a victim that is several, or a program.
    """
    parts = getattr(victim.module, "victims", None)
    if parts is not None or not victim.differentiable or not any(True for _ in victim.module.parameters()):
        raise UsageError(
            f"victim {victim.name} has no weights to train; expected one network (timm, tv, module:function)"
        )
    student = _wrapped(victim)
    student.module.requires_grad_(True)
    for module in student.module.modules():
        if update_batch_norm and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    return student


def _wrapped(victim: Victim) -> Victim:
    return Victim(
        victim.module,
        name=victim.name,
        weights="hardened",
        source=victim.source,
        preprocessing=victim.preprocessing,
        licence=victim.licence,
        device=victim.device,
        precision=victim.precision,
    )


def as_perturbation(delta: Tensor, victim: Victim, images: ImageSet, settings: Settings) -> Perturbation:
    """`delta` (1,3,H,W), made against `victim` on `images`, with its card."""
    params = {key: value for key, value in asdict(settings).items() if key not in ("eps", "seed")}
    return Perturbation.create(
        delta,
        eps=settings.eps,
        method={"name": "universal-adversarial-training", "paper": "Shafahi et al., AAAI 2020", "params": params},
        data={"class": "driven", "sources": [images.describe_source()]},
        victim=victim.describe(),
        seed=settings.seed,
    )


STATE = "training"


def save(run: RunFolder, student: Victim, optimizer: torch.optim.Optimizer, delta: Tensor, done: int) -> None:
    """Raises UapgenError, and keeps the former state, when a weight or delta is not finite."""
    tensors = {f"net.{name}": tensor for name, tensor in student.module.state_dict().items()}
    broken = next((name for name, t in {**tensors, "delta": delta}.items() if not bool(t.isfinite().all())), None)
    if broken:
        raise diverged(run, f"{broken.removeprefix('net.')} is not finite after step {done}")
    run.save(STATE, {**tensors, "delta": delta, **optimizer_tensors(optimizer, "sgd")}, {"step": done})


def diverged(run: RunFolder, what: str) -> UapgenError:
    """The error to raise; the log is cut back to the last save."""
    held = run.load(STATE)
    step = held[1]["step"] if held else 0
    ends = f"--steps {step} ends there; " if step else ""
    return UapgenError(
        f"{what}; the last good state, of step {step}, is kept in {run.path}: {ends}start again with --restart and a "
        "lower --lr"
    )


def load(run: RunFolder, student: Victim, optimizer: torch.optim.Optimizer) -> tuple[Tensor, int]:
    """Restores the last save: delta and how many steps were done. A new run starts at delta = 0 and saves that."""
    held = run.load(STATE)
    if held is None:
        delta = torch.zeros(1, *student.input_size, device=student.device)
        save(run, student, optimizer, delta, 0)
        return delta, 0
    tensors, meta = held
    try:
        student.module.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        load_optimizer_tensors(optimizer, "sgd", tensors)
    except (RuntimeError, ValueError, KeyError) as error:
        raise UapgenError(f"{run.path} holds another network; give --restart, or another -o") from error
    return tensors["delta"].to(student.device), int(meta["step"])
