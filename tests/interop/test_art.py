"""The toolbox must find what ours finds; needs adversarial-robustness-toolbox."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.utils import save_image

from tests.interop.test_foolbox import EPS, PICTURES, pattern
from uapgen.errors import UapgenError, UsageError
from uapgen.evaluation import evaluate
from uapgen.images.sets import open_images
from uapgen.victims import Victim, check_victim


def test_without_the_toolbox_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['art'] = None\n"
        "from uapgen.errors import UapgenError\n"
        "try: import uapgen.interop.art\n"
        "except UapgenError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'uapgen[art]'" in run.stdout, run.stderr


class ChannelsLast(nn.Module):
    """The tiny network as a classifier of images (B,H,W,3) in [0,255] would have it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module((x.movedim(-1, 1) / 255 - 0.5) / 0.5)


class TestWithTheToolbox:
    @pytest.fixture(autouse=True)
    def toolbox(self) -> None:
        pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")

    def theirs(self, module: nn.Module, *, last: bool = False, **more: object) -> object:
        from art.estimators.classification import PyTorchClassifier

        settings = {"input_shape": (3, 32, 32), "clip_values": (0.0, 1.0), "preprocessing": (0.5, 0.5)}
        if last:
            settings = {"input_shape": (32, 32, 3), "clip_values": (0.0, 255.0), "channels_first": False}
            module = ChannelsLast(module)
        settings |= {"loss": nn.CrossEntropyLoss(), "nb_classes": 10, "device_type": "cpu"} | more
        return PyTorchClassifier(module, **settings)

    @pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 4.0)])
    def test_it_counts_what_evaluate_counts(self, norm: str, eps: float, tiny_victim: Victim, tmp_path: Path) -> None:
        from uapgen.interop.art import UniversalEvasion, as_art

        for i, picture in enumerate(PICTURES):
            save_image(picture, tmp_path / f"{i:02}.png")
        uap = pattern(norm, eps)
        images = open_images(tmp_path, tiny_victim.transform, num_classes=10)
        ours = evaluate(uap, tiny_victim, images, quantize=False, noise_floor=False)
        classifier, x = as_art(tiny_victim), PICTURES.numpy()
        attack = UniversalEvasion(classifier, uap)
        x_adv = attack.generate(x)
        np.testing.assert_allclose(x_adv, uap.apply(PICTURES).numpy(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(attack.noise[0], uap.delta.numpy(), rtol=0, atol=0)
        clean, adv = classifier.predict(x).argmax(1), classifier.predict(x_adv).argmax(1)
        assert np.array_equal(clean, ours.predictions.clean.numpy())
        assert np.array_equal(adv, ours.predictions.adv[0].numpy())
        assert ours.rows[0].fooling_rate.count == int((clean != adv).sum()) > 0

    def test_its_gradient_attacks_run_on_a_victim(self, tiny_victim: Victim) -> None:
        from art.attacks.evasion import FastGradientMethod

        from uapgen.interop.art import as_art

        classifier, x = as_art(tiny_victim), PICTURES[:8].numpy()
        x_adv = FastGradientMethod(classifier, eps=EPS).generate(x)
        assert (classifier.predict(x_adv).argmax(1) != classifier.predict(x).argmax(1)).mean() > 0.3
        given = PICTURES[:8].clone().requires_grad_()
        labels = tiny_victim(given).argmax(1)
        gradient = torch.autograd.grad(nn.functional.cross_entropy(tiny_victim(given), labels), given)[0]
        expected = (PICTURES[:8] + EPS * gradient.sign()).clamp(0, 1)
        assert (torch.from_numpy(x_adv) - expected).abs().gt(1e-5).float().mean() < 0.01

    @pytest.mark.parametrize("last", [False, True])
    def test_its_classifiers_are_evaluated_as_victims(self, last: bool, tiny_module: nn.Module) -> None:
        from uapgen.interop.art import UniversalEvasion, from_art

        classifier, uap = self.theirs(tiny_module, last=last), pattern()
        victim = from_art(classifier, name="theirs")
        torch.testing.assert_close(victim(PICTURES), tiny_module((PICTURES - 0.5) / 0.5), rtol=1e-4, atol=1e-4)
        assert (victim.input_size, victim.num_classes) == ((3, 32, 32), 10)
        assert victim.describe()["name"] == "theirs" and check_victim(victim) == []
        x = PICTURES.numpy() if not last else 255 * PICTURES.movedim(1, -1).numpy()
        x_adv = UniversalEvasion(classifier, uap).generate(x)
        assert np.array_equal(classifier.predict(x_adv).argmax(1), victim(uap.apply(PICTURES)).argmax(1).numpy())
        with pytest.raises(UsageError, match="evaluated, not attacked"):
            victim(PICTURES[:1].clone().requires_grad_())

    def test_weights_decide_the_hash(self, tiny_module: nn.Module) -> None:
        from uapgen.interop.art import from_art

        other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        hashes = [from_art(self.theirs(net)).weights_sha256 for net in (tiny_module, tiny_module, other)]
        assert hashes[0] == hashes[1] != hashes[2]
        assert from_art(self.theirs(other), identity="v2").weights_sha256 not in hashes

    def test_what_does_not_fit_is_said(self, tiny_module: nn.Module, tiny_victim: Victim) -> None:
        from uapgen.interop.art import UniversalEvasion, as_art, from_art

        with pytest.raises(UsageError, match="expected a classifier"):
            from_art(tiny_module)
        with pytest.raises(UsageError, match="clip_values are None"):
            from_art(self.theirs(tiny_module, clip_values=None))
        with pytest.raises(UsageError, match="expected RGB images"):
            from_art(self.theirs(tiny_module, input_shape=(1, 32, 32)))
        with pytest.raises(UapgenError, match="failed on images"):
            from_art(self.theirs(nn.Sequential(nn.Flatten(), nn.Linear(7, 10))))
        with pytest.raises(UsageError, match=r"give uap.resized\(\(32, 32\)\)"):
            UniversalEvasion(as_art(tiny_victim), pattern().resized((16, 16))).generate(PICTURES.numpy())
