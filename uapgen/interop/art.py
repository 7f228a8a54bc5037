"""adversarial-robustness-toolbox: victims as its classifiers, its classifiers as victims, perturbations as attacks.

    classifier = as_art(victim)                        # takes (N,3,H,W) float32 in [0,1], as numpy arrays
    x_adv = UniversalEvasion(classifier, uap).generate(x)
    fooled = (classifier.predict(x).argmax(1) != classifier.predict(x_adv).argmax(1)).mean()
    victim = from_art(their_classifier)                # evaluate(uap, victim, images); no gradient passes through

The toolbox does not round to 8 bits: its numbers are those of `evaluate(..., quantize=False)`.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UapgenError, UsageError
from ..perturbation import Perturbation
from ..runtime import module_sha256
from ..victims import Preprocessing, Victim
from . import VictimModule

try:
    from art.attacks.attack import EvasionAttack
    from art.estimators.classification import PyTorchClassifier
    from art.estimators.classification.classifier import ClassifierMixin
    from art.estimators.estimator import BaseEstimator
except ModuleNotFoundError as missing:
    raise UapgenError("uapgen.interop.art needs adversarial-robustness-toolbox; pip install 'uapgen[art]'") from missing


def as_art(victim: Victim) -> PyTorchClassifier:
    """The victim as a PyTorchClassifier: logits, clip_values (0, 1), gradients; it goes on owning its normalisation."""
    return PyTorchClassifier(
        VictimModule(victim).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=victim.input_size,
        nb_classes=victim.num_classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if victim.device.type == "cuda" else "cpu",
    )


def from_art(classifier: Any, *, name: str = "art", identity: str | None = None) -> Victim:
    """A classifier of the toolbox as a victim that can be evaluated, not attacked, with its defences and all.

    Its `clip_values` say which range pixels in [0,1] are stretched to, its `input_shape` the size of the images.
    `identity` names its weights (a version, a hash) where it is not made of a torch module, whose weights are hashed.
    Raises UsageError for a classifier that lacks one of these or takes other than RGB images.
    """
    if not isinstance(classifier, ClassifierMixin):
        raise UsageError(f"expected a classifier of the toolbox, got {type(classifier).__name__}")
    model = getattr(classifier, "model", None)
    if identity is None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"the weights of {type(classifier).__name__} cannot be hashed; give identity='a version'")
        identity = module_sha256(model)
    size, first = _image_size(classifier)
    return Victim(
        _Predictions(classifier, _range(classifier), first, identity),
        name=name,
        source=f"{type(classifier).__name__} of adversarial-robustness-toolbox",
        preprocessing=Preprocessing(size, (0.0,) * 3, (1.0,) * 3, crop_pct=1.0, crop_mode="squash", origin="art"),
        device="cpu",
        precision="fp32",
        copy_module=False,
    )


class _Predictions(nn.Module):
    """`predict` of a classifier that is left as it is: it is no submodule, and its copy would write files."""

    closed, differentiable = True, False

    def __init__(self, classifier: Any, bounds: tuple[float, float], first: bool, weights: str) -> None:
        super().__init__()
        self._classifier, self._bounds, self._first = classifier, bounds, first
        digest = hashlib.sha256(weights.encode()).digest()
        self.register_buffer("identity", torch.tensor(list(digest), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise UsageError("this victim is an art classifier: it can be evaluated, not attacked; craft on another")
        low, high = self._bounds
        pixels = low + (high - low) * (x if self._first else x.movedim(1, -1)).float().cpu().contiguous()
        try:
            scores = self._classifier.predict(pixels.numpy(), batch_size=len(pixels))
        except Exception as error:  # any framework may lie behind it
            raise UapgenError(f"art's classifier failed on images {tuple(pixels.shape)}: {error}") from error
        return torch.from_numpy(np.asarray(scores, dtype=np.float32)).to(x.device)


class UniversalEvasion(EvasionAttack):
    """Adds one perturbation to every image, in the classifier's units and order of channels. L-inf and L2 alike."""

    attack_params: ClassVar[list[str]] = [*EvasionAttack.attack_params, "uap"]
    _estimator_requirements = (BaseEstimator, ClassifierMixin)

    def __init__(self, estimator: Any, uap: Perturbation) -> None:
        super().__init__(estimator=estimator)
        self.uap = uap

    @property
    def noise(self) -> np.ndarray:
        """What is added, (1,3,H,W) or (1,H,W,3) float32, as the toolbox's own universal attack calls it."""
        low, high = _range(self.estimator)
        delta = self.uap.delta.detach().cpu()[None] * (high - low)
        return (delta if _image_size(self.estimator)[1] else delta.movedim(1, -1)).float().contiguous().numpy()

    def generate(self, x: np.ndarray, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """`x` perturbed and clipped to the classifier's clip_values; labels do not matter.

        Raises UsageError for images of another size than the perturbation's.
        """
        noise = self.noise
        if x.shape[1:] != noise.shape[1:]:
            h, w = _image_size(self.estimator)[0][1:]
            raise UsageError(
                f"images are {x.shape[1:]} but the perturbation is {noise.shape[1:]}; give uap.resized(({h}, {w}))"
            )
        adversarial: np.ndarray = np.clip(x + noise, *_range(self.estimator)).astype(np.float32)
        return adversarial


def _range(classifier: Any) -> tuple[float, float]:
    values = classifier.clip_values
    if values is None or any(np.size(end) != 1 for end in values):
        raise UsageError(f"the classifier's clip_values are {values}; give it the range of its pixels, such as (0, 1)")
    return float(values[0]), float(values[1])


def _image_size(classifier: Any) -> tuple[tuple[int, int, int], bool]:
    """(3,H,W), and whether channels come first."""
    shape, first = tuple(classifier.input_shape), bool(getattr(classifier, "channels_first", False))
    if len(shape) != 3 or shape[0 if first else 2] != 3:
        raise UsageError(f"the classifier takes inputs of shape {shape}; expected RGB images")
    h, w = shape[1:] if first else shape[:2]
    return (3, int(h), int(w)), first
