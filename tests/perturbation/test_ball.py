"""The budget's ball in closed form: the way back into it, who is outside, and which bounds there are."""

from __future__ import annotations

import pytest
import torch

from uapgen.errors import UapgenError, UsageError
from uapgen.perturbation.ball import NORMS, check_budget, check_eps, confine, length, project

CORNER = torch.tensor([3.0, 4.0, 0.0]).view(3, 1, 1)  # of length 5, and 4 at most


@pytest.mark.parametrize("way", [project, confine])
def test_the_nearest_point_by_hand(way) -> None:
    assert way(CORNER, 2.0, "linf").flatten().tolist() == [2, 2, 0]
    torch.testing.assert_close(way(CORNER, 2.5, "l2").flatten(), torch.tensor([1.5, 2.0, 0.0]))
    torch.testing.assert_close(way(CORNER, 6.0, "l2"), CORNER)


@pytest.mark.parametrize("norm", NORMS)
def test_a_finished_pattern_inside_keeps_every_bit(norm: str) -> None:
    delta = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(confine(delta, length(delta, norm) * (1 + 1e-6), norm), delta)


@pytest.mark.parametrize("norm", NORMS)
def test_what_was_projected_is_within_the_budget(norm: str) -> None:
    delta = torch.randn(3, 50, 50, generator=torch.Generator().manual_seed(1))
    for eps in (1e-3, 10 / 255, 0.7):
        for way in (project, confine):
            check_budget(way(delta, eps, norm), eps, norm)
        with pytest.raises(UapgenError, match=f"{norm} norm is .* above eps"):
            check_budget(delta, eps, norm)


@pytest.mark.parametrize(
    ("eps", "norm", "message"),
    [
        (0.0, "linf", "not positive"),
        (-1.0, "l2", "not positive"),
        (float("nan"), "linf", "not positive"),
        (float("inf"), "l2", "not positive"),
        (10, "linf", "did you mean 10/255"),
        (0.1, "l1", "expected linf or l2"),
    ],
)
def test_bounds_that_are_none(eps: float, norm: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_eps(eps, norm)
    check_eps(10, "l2")
    check_eps(1.0)
