"""Features and their names: annotators, class halves, the FID network, resize rules, and what a score states."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import inception as tv

from uapgen.errors import UapgenError, UsageError
from uapgen.longtail.metrics import (
    Features,
    Moments,
    accuracy_figure,
    annotator_features,
    class_figures,
    classification_accuracy_score,
    distance_figures,
    frechet_by_half,
    frechet_distance,
    halves,
    load_inception,
    similarity_figure,
    within_classes,
)
from uapgen.longtail.metrics.features import batches
from uapgen.longtail.metrics.inception import STEM_BIAS, build_trunk, to_inception_input
from uapgen.runtime import rng
from uapgen.victims import Victim

WEIGHTS = os.environ.get("UAPGEN_FID_768", "")  # the FID network's tensors up to Mixed_6e


def seen(n: int, seed: int, *, dim: int = 4, shift: float = 0.0, distance: str = "Frechet-annotator") -> Features:
    values = shift + torch.randn(n, dim, generator=rng(seed, "values"))
    logits = torch.randn(n, 4, generator=rng(seed, "logits"))
    return Features(values, logits, distance, "tiny", "0" * 64, "none")


def test_batches_are_eight_bit_unit_range_and_rgb() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(5, 1, 1, 1)
    found = list(batches(grey, 2))
    assert [len(x) for x in found] == [2, 2, 1]
    assert found[0].shape == (2, 3, 16, 16) and found[0].max() == 1
    torch.testing.assert_close(torch.cat(list(batches(grey.float() / 255 + 1e-4 * (grey < 255), 3))), torch.cat(found))
    assert torch.equal(torch.cat(list(batches(iter(grey.split(2)), 2))), torch.cat(found))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 3, 4, 4), -0.5), r"-0.5 to -0.5; expected \[0,1\]"),
        (torch.full((1, 3, 4, 4), torch.nan), "nan"),
        (torch.zeros(3, 4, 4), r"\(3, 4, 4\)"),
    ],
)
def test_images_in_other_ranges_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(batches(images, 4))


def test_annotator_features_are_the_victims_whatever_the_batch(tiny_victim: Victim) -> None:
    images = (255 * torch.rand(7, 3, 32, 32, generator=rng(0))).byte()
    whole, parts = annotator_features(tiny_victim, images), annotator_features(tiny_victim, images, batch_size=3)
    torch.testing.assert_close(whole.values, tiny_victim.features(images.float() / 255))
    torch.testing.assert_close(whole.values, parts.values)
    assert whole.distance == "Frechet-annotator" and whole.resize == "none"
    assert whole.weights_sha256 == tiny_victim.weights_sha256
    small = annotator_features(tiny_victim, images[:, :1, :16, :16])
    assert small.resize == "bilinear, antialiased, 16x16 to 32x32"
    with pytest.raises(UsageError, match="no images"):
        annotator_features(tiny_victim, [])


def test_halves_are_the_lower_and_upper_indices_of_the_published_profile() -> None:
    masks = halves(torch.tensor([5000, 2997, 1796, 1077, 645]))
    assert masks["majority"].tolist() == [True, True, True, False, False]  # (K + 1) // 2 of them
    assert halves(torch.ones(4))["majority"].tolist() == [True, True, False, False]
    assert halves(torch.tensor([1, 9, 2, 8]))["minority"].tolist() == [True, False, True, False]


def test_each_half_is_measured_on_its_own_images() -> None:
    fake, real = seen(40, 0), seen(60, 1, shift=0.5)
    fake_labels, real_labels = torch.arange(40) % 4, torch.arange(60) % 4
    found = frechet_by_half(fake, fake_labels, real, real_labels, torch.tensor([9, 8, 2, 1]))
    assert found["minority"][1:] == (20, 30)
    rare = frechet_distance(Moments.of(fake.values[fake_labels >= 2]), Moments.of(real.values[real_labels >= 2]))
    assert found["minority"][0] == pytest.approx(rare)
    with pytest.raises(UsageError, match="39 labels for 40 images"):
        frechet_by_half(fake, fake_labels[:39], real, real_labels, torch.ones(4))
    with pytest.raises(UsageError, match="for 3 classes"):
        frechet_by_half(fake, fake_labels, real, real_labels, torch.ones(3))
    lost = frechet_by_half(fake, torch.zeros(40, dtype=torch.int64), real, real_labels, torch.tensor([9, 8, 2, 1]))
    assert lost["minority"] == (None, 0, 30) and lost["majority"][1:] == (40, 30)


class _Reference(nn.Module):
    """Torchvision's own forward, told about TensorFlow's pools from outside."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.net = tv.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        seen: dict[str, Tensor] = {}
        layer = self.net.Mixed_6e if self.dims == 768 else self.net.Mixed_7c
        last = self.net.Mixed_7c
        pools = last.branch_pool.register_forward_pre_hook(lambda _, __: (F.max_pool2d(seen["input"], 3, 1, 1),))
        hooks = [
            last.register_forward_pre_hook(lambda _, inputs: seen.update(input=inputs[0])),
            layer.register_forward_hook(lambda _, __, output: seen.update(output=output)),
        ]
        self.net(x)
        for hook in [pools, *hooks]:
            hook.remove()
        return seen["output"].mean((2, 3))


def reference_with_values(dims: int) -> _Reference:
    reference = _Reference(dims)
    for name, tensor in reference.net.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=rng(0, name))
            fan = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
            tensor.copy_(
                1 + 0.1 * noise.abs() if name.endswith(("var", "bn.weight")) else noise * (2 / fan) ** 0.5 * 0.7
            )
    stem = reference.net.Conv2d_1a_3x3.bn
    with torch.no_grad():
        stem.running_mean.zero_()
        stem.bias[: len(STEM_BIAS)] = torch.tensor(STEM_BIAS)
    return reference


@pytest.fixture(scope="module")
def reference() -> _Reference:
    return reference_with_values(2048)


@pytest.fixture(scope="module")
def full_file(reference: _Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "full.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in reference.net.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("dims", [2048, 768])
def test_the_network_is_torchvisions_with_tensorflows_pools(
    reference: _Reference, full_file: Path, dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = load_inception(full_file, dims=dims, device="cpu")
    assert (net.distance, net.dims) == ({2048: "FID", 768: "FID-768"}[dims], dims)
    x = torch.rand(2, 3, 32, 32, generator=rng(1))
    found = net(x)
    reference.dims = dims
    plain = F.avg_pool2d
    with torch.no_grad():
        padded = reference(to_inception_input(x, "pytorch-fid"))
        monkeypatch.setattr(F, "avg_pool2d", lambda *a, **k: plain(*a, **k, count_include_pad=False))
        expected = reference(to_inception_input(x, "pytorch-fid"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (2, dims)
    assert not torch.allclose(found, padded, rtol=1e-3, atol=1e-4)


def test_loading_draws_no_random_numbers_and_hashes_the_values(full_file: Path) -> None:
    state = torch.get_rng_state()
    one, two = (load_inception(full_file, dims=768, device="cpu") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.weights_sha256 == two.weights_sha256 != load_inception(full_file, device="cpu").weights_sha256
    assert not any(p.requires_grad for p in one.trunk.parameters()) and not one.trunk.training


def changed(state: dict[str, Tensor], path: Path, *, keep: str = "", **new: Tensor) -> Path:
    kept = {k: v.contiguous() for k, v in state.items() if not keep or not k.startswith(keep)}
    save_file(kept | new, path)
    return path


def test_files_that_are_not_the_fid_network(reference: _Reference, tmp_path: Path) -> None:
    state = reference.net.state_dict()
    with pytest.raises(UsageError, match="--inception FILE"):
        load_inception(None)
    with pytest.raises(UapgenError, match="cannot read weights"):
        load_inception(tmp_path / "absent.safetensors")
    with pytest.raises(UapgenError, match=r"1 missing \(Mixed_6e.branch_pool.conv.weight\)"):
        load_inception(changed(state, tmp_path / "a.safetensors", keep="Mixed_6e.branch_pool.conv"))
    with pytest.raises(UapgenError, match="1 unexpected"):
        load_inception(changed(state, tmp_path / "b.safetensors", extra=torch.zeros(1)))
    other = changed(state, tmp_path / "c.safetensors", **{"Conv2d_1a_3x3.bn.bias": torch.zeros(32)})
    with pytest.raises(UapgenError, match="not the network that FID is defined by"):
        load_inception(other)
    cut = changed(state, tmp_path / "d.safetensors", keep="Mixed_7")
    assert load_inception(cut, device="cpu").distance == "FID-768"
    with pytest.raises(UapgenError, match="dims=768, which is FID-768"):
        load_inception(cut, dims=2048)
    with pytest.raises(UsageError, match="dims 64"):
        load_inception(cut, dims=64)


@pytest.mark.skipif(not WEIGHTS, reason="UAPGEN_FID_768 names no file of the FID network's weights")
def test_the_real_weights_load_and_tell_pictures_from_noise() -> None:
    net = load_inception(WEIGHTS, device="cpu")
    assert (net.distance, net.dims) == ("FID-768", 768)
    ramp = torch.linspace(0, 1, 48).expand(4, 3, 48, 48) * torch.rand(4, 3, 1, 1, generator=rng(0))
    smooth, noise = net(ramp), net(torch.rand(4, 3, 48, 48, generator=rng(1)))
    assert smooth.isfinite().all() and smooth.min() >= 0
    assert (smooth.mean(0) - noise.mean(0)).norm() > 3 * (noise[:2].mean(0) - noise[2:].mean(0)).norm()


def test_the_trunks_have_the_published_sizes() -> None:
    sizes = {dims: sum(p.numel() for p in build_trunk(dims).parameters()) for dims in (768, 2048)}
    assert sizes[2048] == 21_785_568  # Inception-v3 without its classifier
    assert sizes[768] == sum(p.numel() for p in build_trunk(2048)[:-3].parameters())


def test_resizing_as_tensorflow_does_is_the_loop() -> None:
    x = torch.rand(1, 1, 5, 7, generator=rng(0), dtype=torch.float64)
    found = (to_inception_input(x, "tensorflow")[0, 0] * 128 + 128).numpy() / 255
    a = x[0, 0].numpy()
    for i, j in [(0, 0), (17, 100), (150, 298), (298, 298), (298, 3)]:
        top, left = i * 5 / 299, j * 7 / 299
        r, c = int(top), int(left)
        rows = a[[r, min(r + 1, 4)]]
        row = rows[0] * (1 - top + r) + rows[1] * (top - r)
        assert found[i, j] == pytest.approx(row[c] * (1 - left + c) + row[min(c + 1, 6)] * (left - c), rel=1e-4)
    flat = torch.full((1, 3, 32, 32), 0.5)
    np.testing.assert_allclose(to_inception_input(flat, "pytorch-fid").numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(to_inception_input(flat, "tensorflow").numpy(), -0.5 / 128, atol=1e-6)


def score(distance: str) -> dict:
    fake, real, counts = seen(40, 0, distance=distance), seen(50, 1, distance=distance), torch.tensor([9, 8, 2, 1])
    labels = fake.logits.argmax(1)
    return distance_figures(fake, real, "toy/test", labels, torch.arange(50) % 4, counts, rng(0), kid_blocks=3)


@pytest.mark.parametrize(
    ("distance", "kernel", "share"),
    [
        ("FID", "KID", "precision"),
        ("FID-768", "KID-768", "precision-768"),
        ("Frechet-annotator", "MMD-annotator", "precision-annotator"),
    ],
)
def test_only_the_fid_network_gives_a_fid(distance: str, kernel: str, share: str) -> None:
    found = score(distance)
    expected = {distance, f"{distance}/majority", f"{distance}/minority", kernel, share}
    assert set(found) == expected | {share.replace("precision", "recall")}


def test_every_figure_states_its_terms(tiny_victim: Victim) -> None:
    images = (255 * torch.rand(12, 3, 32, 32, generator=rng(0))).byte()
    labels = torch.arange(12) % 3
    accuracy = classification_accuracy_score(lambda *_: tiny_victim, images, labels, images, labels, 10)
    figures = {
        **score("Frechet-annotator"),
        **class_figures(annotator_features(tiny_victim, images), 10),
        **similarity_figure(within_classes(images, labels, 4, rng(0), pairs=3), 12, (32, 32)),
        **accuracy_figure(accuracy, "toy/test", "tiny CNN, 100 steps"),
    }
    for name, figure in figures.items():
        assert {"value", "n", "reference", "n_reference", "network", "weights_sha256", "resize"} <= set(figure), name
        assert figure["n"] > 0
    assert figures["kl"]["n"] == sum(figures["kl"]["histogram"]) == 12
    assert figures["kl"]["weights_sha256"] == tiny_victim.weights_sha256
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_small_sets_carry_a_caveat_and_other_networks_are_refused() -> None:
    fake, real = seen(5, 0, dim=8), seen(50, 1, dim=8)
    labels, counts = torch.arange(50) % 4, torch.ones(4)
    found = distance_figures(fake, real, "toy", labels[:5], labels, counts, rng(0), kid_blocks=2)
    assert found["Frechet-annotator"]["caveat"] == "5 images for 8 dimensions: biased upwards"
    assert "caveat" not in score("FID")["FID"]
    with pytest.raises(UsageError, match="one network"):
        distance_figures(seen(5, 0), seen(5, 0, distance="FID"), "toy", labels[:5], labels[:5], counts, rng(0))


def test_torch_fidelitys_network_gives_the_same_features(full_file: Path, tmp_path: Path) -> None:
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity not installed")
    torch.save(load_file(full_file), tmp_path / "full.pth")
    images = (255 * torch.rand(2, 3, 32, 32, generator=rng(2))).byte()
    extractor = theirs.FeatureExtractorInceptionV3("x", ["768", "2048"], str(tmp_path / "full.pth"))
    for expected, dims in zip(extractor(images), (768, 2048), strict=True):
        found = load_inception(full_file, dims=dims, resize="tensorflow", device="cpu").features(images).values
        torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)
