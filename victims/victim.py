"""The victim: a frozen classifier that takes pixels in [0,1] and returns logits."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.rows import own, share, summed, whole
from ..errors import UapgenError, UsageError
from ..runtime import module_sha256, resolve_device, resolve_precision
from .hooks import Cost, keep_input, keep_output, pooled


@dataclass(frozen=True)
class Preprocessing:
    """How a picture file becomes the victim's input: resize, crop, and the normalisation that the victim owns."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    origin: str = field(default="given", compare=False)  # whose configuration this is, for people who read the card


@dataclass(frozen=True)
class Probe:
    """What one forward pass showed: logits (B,K), penultimate features (B,F) and the outputs of the layers asked
    for.
    """

    logits: Tensor
    features: Tensor
    layers: list[Tensor]


class Victim:
    """A frozen classifier, `victim(x)` with x (B,3,H,W) float in [0,1] -> logits (B,K) float32.

    The module is in eval mode, its parameters take no gradient, and its activations are not in-place, so that layer
    outputs can be read. Give `copy_module=True` (the default) to leave the caller's own module untouched.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str = "module",
        weights: str = "user",
        source: str | None = None,
        preprocessing: Preprocessing | None = None,
        licence: str | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        copy_module: bool = True,
    ) -> None:
        self.device = resolve_device(device)
        module = copy.deepcopy(module) if copy_module else module
        self.module = module.eval().requires_grad_(False).to(self.device)
        for child in self.module.modules():
            if getattr(child, "inplace", False) is True:
                setattr(child, "inplace", False)  # noqa: B010 (a plain attribute, which mypy takes for a tensor)
        self.weights_sha256 = module_sha256(self.module)
        self.module = self.module.to(memory_format=torch.channels_last)
        self.name, self.weights, self.source, self.licence = name, weights, source, licence
        self.warnings: list[str] = []
        self.before: Callable[[Tensor], Tensor] | None = None  # what images pass before they reach the network
        self.through: list[str] = []  # and what that is called
        self.shared = False  # see `sharing`
        self.cost: Cost | None = None  # see `counted`
        self.preprocessing = preprocessing or Preprocessing()
        self.precision = resolve_precision(precision, self.device, self.module)
        self.mean = torch.tensor(self.preprocessing.mean, device=self.device).view(1, -1, 1, 1)
        self.std = torch.tensor(self.preprocessing.std, device=self.device).view(1, -1, 1, 1)
        self.differentiable = bool(getattr(self.module, "differentiable", True))
        self.head = None if getattr(self.module, "closed", False) else _classifier_head(self.module)
        with torch.no_grad():
            self.num_classes = self(torch.full((1, *self.input_size), 0.5, device=self.device)).shape[-1]

    @property
    def input_size(self) -> tuple[int, int, int]:
        return self.preprocessing.input_size

    @property
    def transform(self) -> Callable[[Any], Tensor]:
        """PIL image -> (3,H,W) uint8, resized and cropped as the model's own configuration says."""
        from timm.data import create_transform

        p = self.preprocessing
        return create_transform(
            p.input_size,
            is_training=False,
            interpolation=p.interpolation,
            crop_pct=p.crop_pct,
            crop_mode=p.crop_mode,
            normalize=False,
        )

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.preprocessing.input_size[0]:
            raise UsageError(f"victim {self.name} expected images (B,3,H,W) in [0,1], got shape {tuple(x.shape)}")
        return self.cost.watched(self._forward, x) if self.cost else self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = self.before(x)
        return whole(self._logits(share(x)), len(x)) if self.shared else self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits = self.module(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UapgenError(f"victim {self.name} returned {found}; expected one tensor of logits (B,K)")
        return logits.float()

    def probe(self, x: Tensor, layers: Sequence[str] = (), inputs_of: Sequence[str] = ()) -> Probe:
        """One forward pass that also returns features, outputs of `layers` and inputs of `inputs_of`, in that order.

        Names come from `layers()` or `batch_norms()`. Of a shared victim the layers are those of this process's rows.
        """
        if self.head is None:
            raise UsageError(
                f"victim {self.name} shows only its logits; methods that read layers or features need more"
            )
        if self.cost:
            self.cost.read(layers)
        seen: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for name in layers:
                hooks.callback(self.module.get_submodule(name).register_forward_hook(keep_output(seen, name)).remove)
            for name in inputs_of:
                hook = self.module.get_submodule(name).register_forward_pre_hook(keep_input(seen, "<" + name))
                hooks.callback(hook.remove)
            hooks.callback(self.head.register_forward_pre_hook(keep_input(seen, "<head")).remove)
            logits = self(x)
        kept = [seen[name] for name in layers] + [seen["<" + name] for name in inputs_of]
        if self.shared:
            kept = [own(layer, len(x)) for layer in kept]
        return Probe(logits, self.whole(pooled(seen["<head"]), len(x)), kept)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (B,F): what the classifier layer reads, averaged over positions where it is
        convolutional.
        """
        return self.probe(x).features

    def sharing(self, shared: bool = True) -> Victim:
        """This victim for batches that are the same on all processes, each of which computes its rows (see `shares`);
        `shared`=False: for batches of each process's own. Weights are shared in either case.
        """
        twin = copy.copy(self)
        twin.shared = shared
        return twin

    def counted(self, cost: Cost | None) -> Victim:
        """This victim, whose passes and those of its copies count into `cost`, or nowhere. Weights are shared."""
        twin = copy.copy(self)
        twin.cost = cost
        return twin

    def whole(self, mine: Tensor, n: int) -> Tensor:
        """The rows (n,...) of the batch of which this process's pass gave `mine`."""
        return whole(mine, n) if self.shared else mine

    def summed(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of what this victim said, from the parts that the processes of a shared one have."""
        return summed(gradients) if self.shared else list(gradients)

    def layers(self) -> list[str]:
        """Names of the activations that layer methods read, in definition order.

        Convolution outputs for CNNs; block outputs for transformers, whose one convolution is the patch embedding.
        """
        convs = [name for name, module in self.module.named_modules() if isinstance(module, nn.Conv2d)]
        if len(convs) > 3:
            return convs
        kinds = [(name, type(module).__name__) for name, module in self.module.named_modules()]
        blocks = [name for name, kind in kinds if kind.endswith(("Block", "EncoderLayer"))]
        blocks = blocks or [name for name, kind in kinds if kind.endswith("Layer")]  # ViTLayer: transformers' names
        return blocks or convs or [n for n, m in self.module.named_modules() if isinstance(m, nn.Linear)][:-1]

    def batch_norms(self) -> list[str]:
        """Names of the batch-norm layers that carry true statistics.

        Empty for nets without batch norm, and for nets whose statistics were absorbed (running mean 0 and variance 1
        everywhere): matching those would pull images towards a fiction.
        """
        norms = [(name, m) for name, m in self.module.named_modules() if isinstance(m, nn.BatchNorm2d)]
        true = [name for name, m in norms if m.running_mean is not None and _has_statistics(m)]
        return true if 2 * len(true) >= len(norms) else []

    def describe(self) -> dict[str, Any]:
        """The victim's part of a card: everything that another person needs to have the same victim."""
        p = dataclasses.asdict(self.preprocessing)
        origin = p.pop("origin")
        return {
            "name": self.name,
            "weights": self.weights,
            "weights_source": self.source,
            "weights_sha256": self.weights_sha256,
            "num_classes": self.num_classes,
            "licence": self.licence,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in p.items()},
            "preprocessing_from": origin,
            **({"through": self.through} if self.through else {}),
        }

    def __repr__(self) -> str:
        size = "x".join(str(n) for n in self.input_size)
        known = f"{self.num_classes} classes, weights {self.weights}, {self.weights_sha256[:12]}"
        return f"Victim({self.name}, {size}, {known})"


def _classifier_head(module: nn.Module) -> nn.Module:
    """Its input is the penultimate features: timm's own answer, else the last linear layer, else the last conv."""
    ask = getattr(module, "get_classifier", None)
    if callable(ask) and isinstance(head := ask(), (nn.Linear, nn.Conv2d)):
        return head
    for kind in (nn.Linear, nn.Conv2d):
        found = [m for name, m in module.named_modules() if isinstance(m, kind) and "aux" not in name.lower()]
        if found:
            return found[-1]
    raise UapgenError(
        f"{type(module).__name__} has neither a linear nor a convolutional layer: not a classifier uapgen can read"
    )


def _has_statistics(norm: nn.BatchNorm2d) -> bool:
    assert norm.running_mean is not None and norm.running_var is not None
    return bool((norm.running_mean.abs() > 1e-6).any() or ((norm.running_var - 1).abs() > 1e-6).any())
