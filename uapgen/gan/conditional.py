"""Class-conditional parts: batch norm with a gain and a bias for each class, and what discriminators do with labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..distributed import world
from ..distributed.rows import moments_over_processes
from ..errors import UsageError
from .blocks import initialised, normalised

Head = Literal["projection", "auxiliary"]


class GeneratorNetwork(nn.Module):
    """A generator: called with z (B, latent_dim) and labels (B,) int64, or None, it returns pixels (B,3,size,size)."""

    latent_dim: int
    size: int
    num_classes: int | None

    def condition(self, labels: Tensor | None) -> Tensor | None:
        """Labels (B,) as the batch norms take them; None in an unconditional network, which ignores labels.

        Raises UsageError when a conditional network is called without labels.
        """
        if self.num_classes is None:
            return None
        if labels is None:
            raise UsageError(f"this generator is conditional on {self.num_classes} classes; give it labels (B,)")
        return labels

    def class_conditions(self) -> Tensor:
        """What the batch norms are given for each of the K classes: here the labels 0 to K-1."""
        assert self.num_classes is not None
        return torch.arange(self.num_classes, device=next(self.parameters()).device)


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d that ignores a condition, and whose batch is that of all processes under torchrun."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return super().forward(x) if world() == 1 or not self.training else _over_processes(self, x)


class ConditionalBatchNorm(BatchNorm):
    """Batch norm whose gain 1 + g(c) and bias b(c) depend on a condition c (de Vries et al., 2017).

    `gain` and `bias` map conditions to (B, channels): embeddings of labels, or linear maps of vectors. eps is 1e-4.
    """

    def __init__(self, channels: int, gain: nn.Module, bias: nn.Module) -> None:
        super().__init__(channels, eps=1e-4, affine=False)
        self.to_gain, self.to_bias = gain, bias

    def gain(self, condition: Tensor) -> Tensor:
        """What the normalised features are multiplied by, (B, channels)."""
        return 1 + self.to_gain(condition)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None, "GeneratorNetwork.condition refuses missing labels"
        gain, bias = self.gain(condition), self.to_bias(condition)
        return super().forward(x) * gain[:, :, None, None] + bias[:, :, None, None]


def _over_processes(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Training-mode batch norm of x (B,C,H,W), with mean and variance over the equal batches of all processes.

    nn.SyncBatchNorm refuses CPUs. Gradients flow through the statistics of every process.
    """
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    assert norm.momentum is not None
    local = x.float()
    var, mean = moments_over_processes(local)
    with torch.no_grad():
        n = world() * x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * n / (n - 1), norm.momentum)
        norm.num_batches_tracked += 1
    scale = (var + norm.eps).rsqrt() if norm.weight is None else norm.weight * (var + norm.eps).rsqrt()
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    return (local * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def label_norm(num_classes: int | None) -> Callable[[int], nn.Module]:
    """A maker of batch norms by channels: conditional on labels through embeddings, or plain without classes."""
    return BatchNorm if num_classes is None else partial(_embedded, num_classes)


def _embedded(num_classes: int, channels: int) -> ConditionalBatchNorm:
    gain, bias = (initialised(nn.Embedding(num_classes, channels)) for _ in range(2))
    return ConditionalBatchNorm(channels, gain, bias)


class Judgement(NamedTuple):
    """`logits` (B,), larger for images that look real; `classes` (B,K) logits of an auxiliary classifier, or None."""

    logits: Tensor
    classes: Tensor | None


class DiscriminatorNetwork(nn.Module):
    """A discriminator: features (B,C) of pixels in [0,1], a linear head, and one of two ways of using labels.

    - projection: adds the inner product of the features and an embedding of the label to the logit (Miyato and
      Koyama, "cGANs with projection discriminator", 2018);
    - auxiliary: a linear classifier on the features (Odena et al., "Conditional image synthesis with auxiliary
      classifier GANs", 2017); the logit does not read labels.

    Subclasses define `features` and call `add_heads` last. Everything is spectrally normalised.
    """

    head: nn.Linear
    num_classes: int | None
    embedding: nn.Embedding | None
    classifier: nn.Linear | None

    def add_heads(self, channels: int, num_classes: int | None, head: Head) -> None:
        """Raises UsageError for a head that is neither projection nor auxiliary."""
        if head not in ("projection", "auxiliary"):
            raise UsageError(f"discriminator head {head!r} is unknown; choose projection or auxiliary")
        self.num_classes, self.embedding, self.classifier = num_classes, None, None
        self.head = normalised(nn.Linear(channels, 1))
        if num_classes is not None and head == "projection":
            self.embedding = normalised(nn.Embedding(num_classes, channels))
        elif num_classes is not None:
            self.classifier = normalised(nn.Linear(channels, num_classes))

    def features(self, x: Tensor) -> Tensor:
        """Pixels (B,3,size,size) in [0,1] -> (B,C)."""
        raise NotImplementedError

    def judge(self, x: Tensor, labels: Tensor | None = None) -> Judgement:
        """Logits and class logits in one pass; an unconditional network and an auxiliary one ignore `labels`.

        Raises UsageError when a projection discriminator is called without labels.
        """
        features = self.features(x)
        logits = self.head(features).squeeze(1)
        if self.embedding is not None:
            if labels is None:
                raise UsageError(f"this discriminator projects on {self.num_classes} classes; give it labels (B,)")
            logits = logits + (self.embedding(labels) * features).sum(1)
        return Judgement(logits, None if self.classifier is None else self.classifier(features))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.judge(x, labels).logits
