"""Every field of the impressions' settings changes the images."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from tests.conftest import TINY
from tests.wiring import Change, both, cases
from uapgen.attacks.core.impressions import ImpressionSettings, class_impressions
from uapgen.attacks.core.run import Crafting
from uapgen.images.warp import Shake
from uapgen.runtime import rng, tensor_sha256
from uapgen.victims import Victim

CLASSES = 4
SMALL = ImpressionSettings(slots=4, steps=12)

FIELDS = {
    "slots": Change(6),
    "lr": Change(4 / 255),
    "confidence": Change((0.9, 0.999)),
    "steps": Change(1),
    "most": Change(4),
    "shake": Change(Shake(rotation=0.0)),
}
WAYS = {
    "rotation": Change(0.0),
    "scale": Change(0.0),
    "shift": Change(0.0),
    "jitter": Change(0.0),
    "noise": Change(0.0),
}


def victim() -> Victim:
    """Two layers with weights from a seed. Not linear: an ascent could not tell noise from none."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Softplus(), nn.Linear(8, CLASSES))
    draws = rng(0, "two layers")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * 3 / parameter.shape[-1] ** 0.5)
    return Victim(net, name="two layers", preprocessing=TINY, device="cpu", precision="fp32")


@cache
def made(settings: ImpressionSettings) -> str:
    run = Crafting(victim(), None, 0.1, 0, 320)
    found = class_impressions(run, settings, images=320)
    return tensor_sha256(found.images, found.classes)


@pytest.mark.parametrize(("field", "change"), cases(ImpressionSettings, FIELDS))
def test_every_field_changes_the_impressions(field: str, change: Change) -> None:
    one, other = both(SMALL, field, change)
    assert made(one) != made(other)


@pytest.mark.parametrize(("field", "change"), cases(Shake, WAYS))
def test_every_way_of_shaking_changes_the_impressions(field: str, change: Change) -> None:
    one, other = both(Shake(), field, change)
    assert made(ImpressionSettings(slots=4, steps=12, shake=one)) != made(
        ImpressionSettings(slots=4, steps=12, shake=other)
    )
