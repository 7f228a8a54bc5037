"""Images moved, turned, cut, recoloured: against torchvision, by hand, and by what each draw promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, gaussian_blur, rotate

from uapgen.errors import UsageError
from uapgen.images.warp import (
    Shake,
    augmented,
    blurred,
    brightened,
    random_resized_crops,
    random_transform,
    rotated,
    shuffled,
)
from uapgen.runtime import rng
from uapgen.victims import Victim

STILL = Shake(rotation=0, scale=0, shift=0, jitter=0, noise=0)


def test_blur_is_torchvisions() -> None:
    images = torch.rand(3, 3, 16, 12, generator=rng(0))
    ours = blurred(images, torch.tensor([1, 5, 9]))
    assert torch.equal(ours[0], images[0])
    assert torch.allclose(ours[1], gaussian_blur(images[1], [5, 5]), atol=1e-6)
    assert torch.allclose(ours[2], gaussian_blur(images[2], [9, 9]), atol=1e-6)


def test_augmentation_flips_half_and_zooms() -> None:
    ramp = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(200, 3, 32, 32).contiguous()
    out = augmented(ramp, rng(0))
    slope = out[..., 15:18, 20].mean((1, 2)) - out[..., 15:18, 12].mean((1, 2))
    assert 70 <= (slope < 0).sum() <= 130  # binomial(200, 1/2), four standard deviations
    zoom = (8 / 31) / slope.abs() / (256 / 224)
    assert 0.7 < zoom.min() < 0.85
    assert 1.35 < zoom.max() < 1.65
    assert torch.equal(out, augmented(ramp, rng(0)))


def test_rotation_is_torchs_and_keeps_the_corners() -> None:
    x = torch.rand(2, 3, 9, 9, generator=rng(0))
    out = rotated(x, torch.tensor([0.0, 90.0]))
    assert torch.allclose(out[0], x[0], atol=1e-5)
    quarter = torch.rot90(x[1], 1, (1, 2)), torch.rot90(x[1], -1, (1, 2))
    assert any(torch.allclose(out[1], turned, atol=1e-4) for turned in quarter)
    x = torch.rand(2, 3, 33, 33, generator=rng(0))
    turned = rotated(x, torch.tensor([6.0, -6.0]))
    assert torch.equal(turned[..., 0, 0], x[..., 0, 0])
    assert not torch.allclose(turned[..., 9, 9], x[..., 9, 9])


def test_block_shuffle_by_hand() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(shuffled(x, (1, 2, 3), (0, 0, 0)), x)
    expected = [[7, 4, 5, 6], [11, 8, 9, 10], [15, 12, 13, 14], [2, 3, 0, 1]]
    assert torch.equal(shuffled(x, (1, 2, 3), (1, 1, 1))[0, 0], torch.tensor(expected).float())


def test_brightening_multiplies_what_the_network_sees(tiny_victim: Victim) -> None:
    seen: list[Tensor] = []
    tiny_victim.module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.rand(2, 3, 32, 32, generator=rng(0))
    tiny_victim(x)
    tiny_victim(brightened(tiny_victim, x, torch.tensor([0.8, 4.0]).view(2, 1, 1, 1)))
    assert torch.allclose(seen[1], seen[0] * torch.tensor([0.8, 4.0]).view(2, 1, 1, 1), atol=1e-5)


def test_a_drawn_transform_is_the_same_for_both_samples(tiny_victim: Victim) -> None:
    x = torch.rand(3, 3, 32, 32, generator=rng(0))
    kinds = set()
    for seed in range(12):
        change = random_transform(tiny_victim, 3, 4.0, rng(seed))
        assert torch.equal(change(x), change(x))
        kinds.add(change.__code__.co_names)
    assert len(kinds) == 3


def test_shaking_by_nothing_changes_nothing() -> None:
    x = torch.rand(2, 3, 12, 16, generator=rng(0, "x"))
    assert torch.allclose(STILL(x, rng(0, "shake")), x, atol=1e-5)
    moved = Shake()(x, rng(0, "shake"))
    assert (moved - x).abs().mean() > 0.02


def test_shaking_turns_as_torchvision_does() -> None:
    x = torch.rand(1, 3, 9, 9, generator=rng(0, "x"))
    turned = replace(STILL, rotation=90)(x, rng(0, "turn"))
    degrees = 90 * (2 * torch.rand(1, generator=rng(0, "turn")).item() - 1)
    expected = rotate(x, degrees, InterpolationMode.BILINEAR)
    inner = (..., slice(3, 6), slice(3, 6))  # what is turned in is mirrored here and black there
    assert torch.allclose(turned[inner], expected[inner], atol=1e-4)


def test_whole_crop_is_the_image() -> None:
    images = torch.rand((2, 3, 24, 24), generator=rng(0))
    crops = random_resized_crops(images, 4, rng(1), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.allclose(crops, images[[0, 1, 0, 1]], atol=1e-5)


def test_crops_see_the_share_of_the_area_asked_for() -> None:
    h, w = 40, 60
    ramp = torch.stack([torch.linspace(0, 1, w).expand(h, w), torch.linspace(0, 1, h).view(-1, 1).expand(h, w)])[None]
    crops = random_resized_crops(ramp, 200, rng(0), scale=(0.25, 0.25), ratio=(3 / 4, 4 / 3))
    width, height = (crops[:, i].amax((1, 2)) - crops[:, i].amin((1, 2)) for i in (0, 1))
    assert (width * height).mean() == pytest.approx(0.25, abs=0.02)
    aspect = width * w / (height * h)
    assert aspect.min() > 0.70
    assert aspect.max() < 1.42
    assert crops.min() >= -1e-6
    assert crops.max() <= 1 + 1e-6


def test_crops_pass_gradients_and_refuse_bad_ranges() -> None:
    images = torch.rand((1, 3, 16, 16), generator=rng(0)).requires_grad_()
    random_resized_crops(images, 2, rng(0)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    with pytest.raises(UsageError, match="scale"):
        random_resized_crops(images, 2, rng(0), scale=(0.0, 1.0))
