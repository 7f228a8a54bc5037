"""foolbox's own evaluation must find what ours finds."""

from __future__ import annotations

from pathlib import Path

import foolbox
import pytest
import torch
from foolbox.attacks import LinfFastGradientAttack, LinfProjectedGradientDescentAttack
from torch import Tensor
from torchvision.utils import save_image

from tests.conftest import gratings
from uapgen.errors import UsageError
from uapgen.evaluation import evaluate
from uapgen.evaluation.per_image import PerImage, parse_attack, plan_attacks
from uapgen.images.sets import open_images
from uapgen.interop.foolbox import UniversalAttack, WithUniversal, as_foolbox, descent_from
from uapgen.perturbation import Perturbation
from uapgen.victims import Victim

EPS = 32 / 255  # as strong as the gratings of the pictures: some are taken for that of the pattern
PICTURES = (gratings(48, seed=7)[0] * 255).round() / 255


def pattern(norm: str = "linf", eps: float = EPS, seed: int = 0) -> Perturbation:
    """A grating, which the victim takes for a class of its own, and some noise, inside the ball of `eps`."""
    noise = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed))
    raw = (0.5 * torch.arange(32.0)).sin() + 0.3 * noise
    delta = (eps * raw).clamp(-eps, eps) if norm == "linf" else eps * raw / raw.norm()
    return Perturbation.create(delta, eps=eps, norm=norm, method={"name": "grating"}, data={"class": "none"})


def predictions(model: foolbox.Model) -> Tensor:
    return model(PICTURES).argmax(-1)


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 4.0)])
def test_foolbox_counts_what_evaluate_counts(norm: str, eps: float, tiny_victim: Victim, tmp_path: Path) -> None:
    for i, picture in enumerate(PICTURES):
        save_image(picture, tmp_path / f"{i:02}.png")
    uap = pattern(norm, eps)
    images = open_images(tmp_path, tiny_victim.transform, num_classes=10)
    ours = evaluate(uap, tiny_victim, images, quantize=False, noise_floor=False)
    model = as_foolbox(tiny_victim)
    labels = predictions(model)
    assert torch.equal(labels, ours.predictions.clean)
    _, clipped, success = UniversalAttack(uap)(model, PICTURES, labels, epsilons=eps)
    assert ours.rows[0].fooling_rate.count == int(success.sum()) > 0
    assert torch.equal(success, ours.predictions.adv[0] != labels)
    torch.testing.assert_close(clipped, uap.apply(PICTURES), rtol=0, atol=1e-6)
    robust = foolbox.accuracy(WithUniversal(model, uap), PICTURES, labels)
    assert round(robust * 48) == 48 - ours.rows[0].fooling_rate.count


def test_smaller_bounds_project_or_scale(tiny_victim: Victim) -> None:
    model, uap, grey = as_foolbox(tiny_victim), pattern(), torch.full((1, 3, 32, 32), 0.5)
    labels = model(grey).argmax(-1)
    half, whole, beyond = UniversalAttack(uap)(model, grey, labels, epsilons=[EPS / 2, EPS, 2 * EPS])[1]
    torch.testing.assert_close(half[0] - 0.5, uap.delta.clamp(-EPS / 2, EPS / 2), rtol=0, atol=1e-6)
    assert torch.equal(whole, beyond)
    scaled = UniversalAttack(uap, scale=True)(model, grey, labels, epsilons=2 * EPS)[1]
    torch.testing.assert_close(scaled[0] - 0.5, 2 * uap.delta * EPS / uap.delta.abs().max(), rtol=0, atol=1e-6)
    shortened = UniversalAttack(pattern("l2", 2.0))(model, grey, labels, epsilons=1.0)[1]
    assert float((shortened - grey).norm()) == pytest.approx(1, rel=1e-4)
    assert repr(UniversalAttack(uap)).startswith("UniversalAttack(grating, ")


def test_other_bounds_of_the_model_move_the_pattern_with_them(tiny_victim: Victim) -> None:
    model, uap = as_foolbox(tiny_victim), pattern()
    levels = model.transform_bounds((0, 255))
    labels = predictions(model)
    inside = UniversalAttack(uap)(model, PICTURES, labels, epsilons=EPS)
    outside = UniversalAttack(uap)(levels, PICTURES * 255, labels, epsilons=255 * EPS)
    torch.testing.assert_close(outside[1] / 255, inside[1], rtol=0, atol=1e-6)
    assert torch.equal(outside[2], inside[2])


def test_any_attack_runs_on_top_of_a_pattern(tiny_victim: Victim) -> None:
    model, uap = as_foolbox(tiny_victim), pattern()
    labels = predictions(model)
    alone = UniversalAttack(uap)(model, PICTURES, labels, epsilons=EPS)[2]
    both = LinfFastGradientAttack()(WithUniversal(model, uap), PICTURES, labels, epsilons=4 / 255)[2]
    assert int(both.sum()) > int(alone.sum())


def test_descent_starts_at_the_pattern(tiny_victim: Victim) -> None:
    model, uap = as_foolbox(tiny_victim), pattern()
    labels = predictions(model)
    none = descent_from(uap, "linf", steps=0, rel_stepsize=0.1)(model, PICTURES, labels, epsilons=EPS)[1]
    torch.testing.assert_close(none, uap.apply(PICTURES), rtol=0, atol=1e-6)
    plain = LinfProjectedGradientDescentAttack(steps=4, rel_stepsize=0.3, random_start=False)
    ours = descent_from(None, "linf", steps=4, rel_stepsize=0.3)(model, PICTURES, labels, epsilons=EPS)[1]
    assert torch.equal(ours, plain(model, PICTURES, labels, epsilons=EPS)[1])


@pytest.mark.parametrize(
    ("name", "norm", "eps"), [("l2-pgd", "l2", 3.0), ("deepfool", "l2", 3.0), ("fgsm", "linf", EPS)]
)
def test_single_image_attacks_keep_their_bound(name: str, norm: str, eps: float, tiny_victim: Victim) -> None:
    clean = predictions(as_foolbox(tiny_victim))
    found = PerImage(name, norm, eps, None if name == "fgsm" else 5)(tiny_victim, PICTURES, clean)
    moved = found - PICTURES
    length = moved.flatten(1).norm(dim=1) if norm == "l2" else moved.abs().flatten(1).amax(1)
    assert float(length.max()) <= eps * (1 + 1e-4)
    with torch.no_grad():
        assert int((tiny_victim(found).argmax(1) != clean).sum()) > 10


def test_what_does_not_fit_is_refused(tiny_victim: Victim) -> None:
    model = as_foolbox(tiny_victim)
    with pytest.raises(UsageError, match=r"images are 32x32 but the perturbation is 8x8; give uap.resized"):
        UniversalAttack(pattern().resized(8))(model, PICTURES, predictions(model), epsilons=EPS)
    with pytest.raises(UsageError, match="expected linf or l2"):
        descent_from(None, "l1")
    for word, message in (
        ("pgd", "did you mean 'l2-pgd'"),
        ("linf-pgd:none", "is not NAME:STEPS"),
        ("fgsm:3", "fgsm has one step"),
        ("", "no per-image attack ''"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_attack(word)
    assert [attack.index for attack in plan_attacks("linf-pgd,linf-pgd", [pattern(), pattern(seed=1)])] == [0, 1]
