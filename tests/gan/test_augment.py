"""DiffAugment: each change against a direct computation of it, gradients, and that images are treated singly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uapgen.gan import diff_augment
from uapgen.gan.augment import colour, cutout, translate
from uapgen.runtime import rng


def pictures(n: int = 6, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=rng(0, "pictures"))


def test_colour_moves_the_mean_by_the_brightness_alone() -> None:
    """Saturation keeps each pixel's mean over channels, contrast each image's mean."""
    x = pictures(500, 4)
    shift = (colour(x, rng(0, "c")) - x).mean((1, 2, 3))
    assert float(shift.abs().max()) <= 0.25 + 1e-6
    assert float(shift.min()) < -0.2 and float(shift.max()) > 0.2
    assert abs(float(shift.mean())) < 0.03


def test_colour_of_a_grey_picture_is_contrast_alone() -> None:
    x = torch.rand(400, 1, 4, 4, generator=rng(0, "x")).expand(-1, 3, -1, -1)
    y = colour(x, rng(1, "c"))
    assert torch.allclose(y[:, :1].expand_as(y), y, atol=1e-6)  # stays grey
    ratio = y.std((1, 2, 3)) / x.std((1, 2, 3))
    assert float(ratio.min()) == pytest.approx(0.5, abs=0.03)
    assert float(ratio.max()) == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("size", [32, 64])
def test_translation_is_one_of_the_whole_pixel_shifts(size: int) -> None:
    x, reach = pictures(12, size), size // 8
    y = translate(x, rng(0, "t"))
    padded = torch.nn.functional.pad(x, (reach,) * 4, value=0.5)
    shifts = set()
    for before, after in zip(padded, y, strict=True):
        found = [
            (dy, dx)
            for dy in range(2 * reach + 1)
            for dx in range(2 * reach + 1)
            if torch.equal(before[:, dy : dy + size, dx : dx + size], after)
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 8


def test_translation_reaches_both_ends() -> None:
    y = translate(torch.zeros(600, 3, 8, 8), rng(0, "t"))  # reach 1: grey enters by at most one line a side
    grey = (y == 0.5).float().mean(0)[0]
    assert torch.all(grey[1:-1, 1:-1] == 0)
    edges = torch.stack([grey[0, 3], grey[-1, 3], grey[3, 0], grey[3, -1]])
    assert torch.allclose(edges, torch.full((4,), 1 / 3), atol=0.07)


def test_cutout_greys_one_box_of_half_the_sides() -> None:
    y = cutout(torch.zeros(400, 3, 16, 16), rng(0, "o"))
    covered = (y == 0.5)[:, 0]
    rows, columns = covered.any(2), covered.any(1)
    assert torch.equal(covered, rows[:, :, None] & columns[:, None, :])  # a box, in every channel
    assert torch.equal((y == 0.5).all(1), covered)
    for side in (rows.sum(1), columns.sum(1)):
        assert int(side.max()) == 8 and int(side.min()) == 4  # half a box where the centre is on the border
    assert torch.equal(y[~covered[:, None].expand_as(y)].unique(), torch.zeros(1))


def test_gradients_pass_through_what_is_still_seen() -> None:
    x = pictures().requires_grad_()
    y = cutout(translate(x, rng(0, "a")), rng(1, "a"))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.unique().tolist() == [0, 1]
    assert int(x.grad.sum()) == int((y != 0.5).sum())


def test_gradcheck() -> None:
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=rng(0, "x")).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, rng(0, "a")), x)


def test_images_get_draws_of_their_own_that_the_generator_decides() -> None:
    x = pictures(1).expand(8, -1, -1, -1)
    y = diff_augment(x, rng(0, "a"))
    assert len({image.numpy().tobytes() for image in y}) == 8
    assert torch.equal(y, diff_augment(x, rng(0, "a")))
    assert not torch.equal(y, diff_augment(x, rng(1, "a")))
