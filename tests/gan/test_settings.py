"""The settings of a training: each field changes the bytes and the description, and is refused out of range."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.wiring import Change, both, cases
from uapgen.errors import UsageError
from uapgen.gan import SNDCDiscriminator, SNDCGenerator, TrainSettings, diff_augment, hinge, non_saturating, train_gan
from uapgen.gan.conditional import Judgement
from uapgen.gan.settings import described
from uapgen.runtime import module_sha256

K = 3
SMALL = TrainSettings(8, non_saturating, lr_g=1e-3, lr_d=1e-3, ema_halflife=20, ema_start=8)


def real(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(K, (n,), generator=generator)
    return (labels.view(-1, 1, 1, 1) + torch.rand(n, 3, 16, 16, generator=generator)) / K, labels


def halved(judged: Judgement, labels: Tensor | None, nimg: int) -> Tensor:
    return torch.full_like(judged.logits, 0.5)


FIELDS = {
    "batch": Change(12),
    "loss": Change(hinge),
    "lr_g": Change(2e-3),
    "lr_d": Change(2e-3),
    "betas": Change((0.5, 0.999)),
    "d_steps": Change(2),
    "auxiliary": Change(0.5),
    "fake_auxiliary": Change(0.25),
    "fake_weight": Change(halved),
    "augment": Change(diff_augment),
    "precision": Change("bf16"),
    "ema_halflife": Change(40),
    "ema_start": Change(16),
}


@cache
def trained(settings: TrainSettings) -> str:
    g, d = SNDCGenerator(4, 2, size=16, num_classes=K), SNDCDiscriminator(2, size=16, num_classes=K, head="auxiliary")
    with tempfile.TemporaryDirectory() as folder:
        return module_sha256(train_gan(g, d, real, settings, folder=folder, images=32, device="cpu"))


@pytest.mark.parametrize(("field", "change"), cases(TrainSettings, FIELDS))
def test_every_field_changes_the_generator_and_the_description(field: str, change: Change) -> None:
    one, other = both(SMALL, field, change)
    assert trained(one) != trained(other)
    told, now = one.describe(), other.describe()
    assert {name for name in told if told[name] != now[name]} == {field}


def test_both_betas_are_adams() -> None:
    assert len({trained(dataclasses.replace(SMALL, betas=betas)) for betas in ((0.0, 0.999), (0.0, 0.9))}) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch 0"),
        ({"d_steps": 0}, "d_steps 0"),
        ({"lr_g": 0.0}, "learning rates 0.0"),
        ({"lr_d": float("nan")}, "learning rates .* nan"),
        ({"betas": (0.0, 1.0)}, "betas"),
        ({"auxiliary": -1.0}, "auxiliary -1"),
        ({"fake_auxiliary": float("inf")}, "fake_auxiliary inf"),
        ({"precision": "fp16"}, "precision 'fp16'"),
        ({"ema_halflife": 0.0}, "half-life 0"),
        ({"ema_start": -1}, "ema_start -1"),
        ({"loss": TrainSettings(1).loss, "fake_weight": halved}, "non_saturating, hinge"),
    ],
)
def test_what_is_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SMALL, **change)


def test_the_description_is_json_and_the_same_for_equal_settings() -> None:
    assert SMALL.describe() == dataclasses.replace(SMALL).describe()
    assert TrainSettings(8).describe() == {
        "batch": 8,
        "loss": "relativistic",
        "lr_g": 2e-4,
        "lr_d": 2e-4,
        "betas": [0.0, 0.999],
        "d_steps": 1,
        "auxiliary": 1.0,
        "fake_auxiliary": None,
        "fake_weight": None,
        "augment": None,
        "precision": "fp32",
        "ema_halflife": 1_774_000,
        "ema_start": 5_120_000,
    }


@dataclasses.dataclass(frozen=True)
class Scaled:
    """An augmentation that is an object."""

    by: float

    def __call__(self, x: Tensor, draws: torch.Generator) -> Tensor:
        return self.by * x

    def method(self, x: Tensor, draws: torch.Generator) -> Tensor:
        return self(x, draws)


def scaled(x: Tensor, draws: torch.Generator, by: float = 1.0) -> Tensor:
    return by * x


def remembering(by: float) -> Any:
    def inner(x: Tensor, draws: torch.Generator) -> Tensor:
        return by * x

    return inner


def test_functions_partials_and_objects_say_what_they_do() -> None:
    name = f"{__name__}.scaled"
    assert described(scaled, "augment") == name
    assert described(partial(scaled, by=0.5), "augment") == {"function": name, "by": 0.5}
    assert described(partial(partial(scaled, 1), by=2), "augment") == {"function": name, "0": 1, "by": 2}
    assert described(Scaled(0.5), "augment") == {"kind": "Scaled", "by": 0.5}
    assert described(Scaled(0.5), "augment") != described(Scaled(0.25), "augment")


@pytest.mark.parametrize(
    "value",
    [
        lambda x, draws: x,
        remembering(2.0),
        Scaled(2.0).method,
        object(),
        partial(lambda x, draws: x),
        functools.partial(scaled, by=torch.ones(1)),
        torch.nn.ReLU(),
    ],
)
def test_what_cannot_say_what_it_does_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"augment.* cannot say what it does.*functools\.partial"):
        described(value, "augment")
