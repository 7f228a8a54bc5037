"""Conditional networks, heads, group spectral regularisation, class noise, and training with labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.conftest import SEED
from uapgen.errors import UapgenError, UsageError
from uapgen.gan import (
    BigDiscriminator,
    BigGenerator,
    DiscriminatorNetwork,
    Every,
    GeneratorNetwork,
    GroupSpectral,
    SNDCDiscriminator,
    SNDCGenerator,
    SNResDiscriminator,
    SNResGenerator,
    TrainSettings,
    diff_augment,
    hinge,
    noise_scale,
    rarity,
    relativistic,
    sample_latents,
    train_gan,
)
from uapgen.gan.conditional import label_norm
from uapgen.gan.losses import largest_singular
from uapgen.runfolder import load_state
from uapgen.runtime import rng

K = 5
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1]]).view(
    K, 3, 1, 1
)


def real(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each class a colour, with noise."""
    labels = torch.randint(K, (n,), generator=generator)
    return (COLOURS[labels] + 0.02 * torch.randn(n, 3, 32, 32, generator=generator)).clamp(0, 1), labels


def conditional_pairs() -> dict[str, tuple[GeneratorNetwork, DiscriminatorNetwork]]:
    return {
        "sndcgan": (SNDCGenerator(8, 4, num_classes=K), SNDCDiscriminator(4, num_classes=K)),
        "snresgan": (SNResGenerator(8, 32, 2, num_classes=K), SNResDiscriminator(32, 2, num_classes=K)),
        "biggan": (BigGenerator(K, 32, 2, z_dim=8, embed_dim=6), BigDiscriminator(K, 32, 2)),
        "biggan64": (BigGenerator(K, 64, 2, z_dim=8, embed_dim=6, hierarchical=False), BigDiscriminator(K, 64, 2)),
        "noisy": (
            BigGenerator(K, 32, 2, z_dim=8, embed_dim=6, noise=torch.arange(5.0)),
            BigDiscriminator(K, 32, 2, head="auxiliary"),
        ),
        "acgan": (SNDCGenerator(8, 4, num_classes=K), SNDCDiscriminator(4, num_classes=K, head="auxiliary")),
    }


@pytest.mark.parametrize("name", conditional_pairs())
def test_shapes_range_and_labels_matter(name: str) -> None:
    g, d = conditional_pairs()[name]
    z = sample_latents(4, g.latent_dim, rng(0, "z"))
    labels = torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        x = g.eval()(z, labels)
        assert x.shape == (4, 3, g.size, g.size)
        assert 0 <= float(x.min()) < float(x.max()) <= 1
        assert not torch.equal(x, g(z, labels + 1))
        judged = d.eval().judge(x, labels)
    assert judged.logits.shape == (4,)
    assert torch.equal(judged.logits, d(x, labels))
    assert (judged.classes is None) == (d.classifier is None)
    if judged.classes is not None:
        assert judged.classes.shape == (4, K)
        assert torch.equal(d(x), judged.logits)  # an auxiliary discriminator does not read labels
    else:
        with pytest.raises(UsageError, match="discriminator projects on 5 classes"):
            d(x)
    with pytest.raises(UsageError, match="conditional on 5 classes"):
        g(z)


def test_conditional_batch_norm_is_batch_norm_times_gain_plus_bias() -> None:
    norm = label_norm(K)(7)
    x, labels = torch.randn(6, 7, 4, 4, generator=rng(0, "x")), torch.tensor([0, 1, 2, 3, 4, 0])
    plain = nn.functional.batch_norm(x, None, None, training=True, eps=1e-4)
    gain, bias = 1 + norm.to_gain.weight[labels], norm.to_bias.weight[labels]
    assert torch.allclose(norm(x, labels), plain * gain.view(6, 7, 1, 1) + bias.view(6, 7, 1, 1), atol=1e-6)
    assert torch.allclose(norm.to_gain.weight @ norm.to_gain.weight.T, torch.eye(K), atol=1e-5)


def test_projection_adds_the_inner_product_with_the_label() -> None:
    d = SNDCDiscriminator(4, num_classes=K).eval()
    x = torch.rand(3, 3, 32, 32, generator=rng(0, "x"))
    a, b = torch.tensor([0, 1, 2]), torch.tensor([3, 1, 4])
    assert d.embedding is not None
    difference = ((d.embedding(a) - d.embedding(b)) * d.features(x)).sum(1)
    assert torch.allclose(d(x, a) - d(x, b), difference, atol=1e-5)


def test_an_unconditional_network_ignores_labels() -> None:
    g, d = SNDCGenerator(8, 4).eval(), SNDCDiscriminator(4).eval()
    z, labels = sample_latents(2, 8, rng(0, "z")), torch.tensor([0, 1])
    assert torch.equal(g(z), g(z, labels))
    assert torch.equal(d(g(z)), d(g(z), labels))


def test_biggan_at_its_published_size() -> None:
    """The CIFAR network of the authors' PyTorch code: 64 channels, four latent parts of 20, embedding of 80."""
    g = BigGenerator(10, z_dim=80, embed_dim=80)
    linear = 20 * 4096 + 4096
    convolutions = 3 * (2 * (256 * 256 * 9 + 256) + 256 * 256 + 256) + 256 * 3 * 9 + 3
    norms = 3 * 2 * 2 * 100 * 256 + 2 * 256
    assert sum(p.numel() for p in g.parameters()) == 10 * 80 + linear + convolutions + norms
    with pytest.raises(UsageError, match="multiple of 4"):
        BigGenerator(10, z_dim=42)
    with pytest.raises(UsageError, match="each of 10 classes"):
        BigGenerator(10, width=2, noise=torch.ones(3))


def test_class_noise_comes_from_z_and_scales_with_the_class() -> None:
    g = BigGenerator(2, 32, 2, z_dim=8, embed_dim=6, noise=torch.tensor([0.0, 1.0])).eval()
    assert g.latent_dim == 14
    z = sample_latents(1, 14, rng(0, "z"))
    other = torch.cat([z[:, :8], sample_latents(1, 6, rng(1, "z"))], 1)
    assert torch.equal(g(z, torch.tensor([0])), g(other, torch.tensor([0])))
    assert not torch.equal(g(z, torch.tensor([1])), g(other, torch.tensor([1])))


def test_rarity() -> None:
    assert torch.allclose(rarity(torch.full((4,), 17), 0.99), torch.ones(4))
    counts = torch.tensor([1, 2])
    assert torch.allclose(rarity(counts, 0.5), 2 * torch.tensor([0.6, 0.4]))  # E = 1, 1.5
    tail = rarity(torch.tensor([5000, 500, 50]), 0.999)
    assert tail[0] < tail[1] < tail[2] and float(tail.sum()) == pytest.approx(3)
    assert torch.allclose(noise_scale(torch.full((4,), 17)), torch.full((4,), 0.75))
    with pytest.raises(UsageError, match="class 1 has no image"):
        rarity(torch.tensor([3, 0]), 0.99)
    with pytest.raises(UsageError, match="beta 1 "):
        rarity(counts, 1)


def test_power_iteration_and_its_gradient_are_those_of_the_svd() -> None:
    matrices = torch.randn(2, K, 4, 6, dtype=torch.float64, generator=rng(0, "m")).requires_grad_()
    start = torch.randn(2, K, 6, generator=rng(0, "v"))
    sigma, _ = largest_singular(matrices, start, 500)
    exact = torch.linalg.matrix_norm(matrices, 2)
    assert torch.allclose(sigma, exact)
    gradients = [torch.autograd.grad(value.sum(), matrices, retain_graph=True)[0] for value in (sigma, exact)]
    assert torch.allclose(*gradients, atol=1e-6)
    assert bool((largest_singular(matrices, start, 1)[0] <= exact + 1e-9).all())


def test_group_spectral_loss_is_its_formula_for_gains_and_biases_alike() -> None:
    g = SNDCGenerator(8, 4, num_classes=K)
    counts = torch.tensor([500, 100, 50, 10, 5])
    regulariser = GroupSpectral(g, counts, weight=3, iterations=50)
    for _ in range(20):
        weighted, numbers = regulariser(torch.empty(0), 0)
    expected = []
    for norm, (a, b) in zip(g.norms, [(4, 4), (2, 4), (2, 2)], strict=True):
        for matrices in ((1 + norm.to_gain.weight).view(K, a, b), norm.to_bias.weight.view(K, a, b)):
            sigma = torch.linalg.matrix_norm(matrices, 2)
            expected.append((0.5 * rarity(counts, 0.999) * sigma.square()).mean())
    assert float(numbers["gsr"]) == pytest.approx(sum(expected).item() / 3, rel=1e-4)
    assert weighted.item() == pytest.approx(sum(expected).item(), rel=1e-4)
    weighted.backward()
    assert all(norm.to_bias.weight.grad.abs().sum(1).gt(0).all() for norm in g.norms)


def test_group_spectral_runs_on_shared_embeddings_and_refuses_what_does_not_fit() -> None:
    g = BigGenerator(K, 32, 2, z_dim=8, embed_dim=6)
    regulariser = GroupSpectral(g, torch.full((K,), 9))
    regulariser.loss().backward()
    assert g.embedding.weight.grad is not None and bool(g.embedding.weight.grad.any())
    with pytest.raises(UsageError, match="conditional batch norm"):
        GroupSpectral(SNDCGenerator(8, 4), torch.ones(K))
    with pytest.raises(UsageError, match="one a class"):
        GroupSpectral(g, torch.ones(3))
    with pytest.raises(ValueError, match="another generator"):
        regulariser.load_state_dict(GroupSpectral(SNDCGenerator(8, 4, num_classes=K), torch.ones(K)).state_dict())


def train(folder: Path, images: int, head: Any = "auxiliary", **options: Any) -> GeneratorNetwork:
    g = SNDCGenerator(8, 4, num_classes=K)
    d = SNDCDiscriminator(4, num_classes=K, head=head)
    gsr = GroupSpectral(g, torch.full((K,), 20))
    given: dict[str, Any] = {
        "extra_loss": gsr,
        "state": {"gsr": gsr},
        "every": Every(save=16, grid=16),
        "device": "cpu",
    }
    fields: dict[str, Any] = {"augment": diff_augment, "ema_halflife": 20, "ema_start": 16} | options
    given |= {name: fields.pop(name) for name in options if name not in TrainSettings.__dataclass_fields__}
    return train_gan(g, d, real, TrainSettings(8, **fields), folder=folder, images=images, **given)


@pytest.mark.parametrize("head", ["projection", "auxiliary"])
def test_interrupted_and_continued_ends_in_the_same_bytes(tmp_path: Path, head: str) -> None:
    def stop(nimg: int, stats: dict[str, float]) -> None:
        if nimg == 24:
            raise KeyboardInterrupt

    train(tmp_path / "whole", 48, head)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", 48, head, callback=stop)
    train(tmp_path / "parts", 48, head)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "parts" / file.name).read_bytes(), file.name


def test_the_classifier_losses_are_weighted_and_logged(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    train(tmp_path / "a", 8, callback=lambda nimg, stats: rows.append(stats))
    assert rows[0]["d_classes"] == pytest.approx(2 * 1.609, abs=0.8)  # twice log 5, nothing being learnt yet
    states = {}
    for weight in (0.0, 1.0):
        train(tmp_path / str(weight), 8, auxiliary=weight)
        states[weight] = load_state(tmp_path / str(weight) / "gan.safetensors")[0]
    moved = "d.classifier.parametrizations.weight.original"
    fresh = SNDCDiscriminator(4, num_classes=K, head="auxiliary").state_dict()[moved.removeprefix("d.")]
    assert torch.equal(states[0.0][moved], fresh)  # Adam does not move what has no gradient
    assert not torch.equal(states[1.0][moved], fresh)


def test_labels_of_real_and_of_generated_images_are_learnt(tmp_path: Path) -> None:
    """The auxiliary classifier must tell real classes apart, and the generator must make what it is asked for."""
    g = SNDCGenerator(8, 4, num_classes=K, seed=SEED)
    d = SNDCDiscriminator(4, num_classes=K, head="auxiliary", seed=SEED)
    settings = TrainSettings(16, hinge, lr_g=2e-3, lr_d=2e-3, betas=(0.0, 0.99), auxiliary=5.0)
    train_gan(g, d, real, settings, folder=tmp_path, images=1008, seed=SEED, device="cpu")
    x, labels = real(200, rng(1, "held out"))
    asked = torch.arange(K).repeat_interleave(20)
    with torch.no_grad():
        on_real = d.judge(x).classes
        on_fake = d.judge(g(sample_latents(len(asked), 8, rng(0, "z")), asked)).classes
    assert on_real is not None and on_fake is not None
    # Chance is 0.2. Three seeds of four end at 1.0 and 1.0, one at 0.8 and 0.7.
    assert (on_real.argmax(1) == labels).float().mean() > 0.5
    assert (on_fake.argmax(1) == asked).float().mean() > 0.4


def test_bf16_trains_float32_weights(tmp_path: Path) -> None:
    ema = train(tmp_path, 16, precision="bf16")
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in ema.parameters())


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    g, d = SNDCGenerator(8, 4, num_classes=K), SNDCDiscriminator(4, num_classes=K)
    common: dict[str, Any] = {"settings": TrainSettings(8), "folder": tmp_path, "images": 8, "device": "cpu"}
    with pytest.raises(UsageError, match="5 and None classes"):
        train_gan(g, SNDCDiscriminator(4), real, **common)
    with pytest.raises(UsageError, match=r"return \(images, labels\)"):
        train_gan(g, d, lambda n, generator: real(n, generator)[0], **common)
    with pytest.raises(UsageError, match="head 'both' is unknown"):
        SNDCDiscriminator(4, num_classes=K, head="both")  # type: ignore[arg-type]


def test_a_nan_keeps_the_last_good_save(tmp_path: Path) -> None:
    def broken(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, labels = real(n, generator)
        broken.calls += 1
        return x * (float("nan") if broken.calls > 3 else 1), labels

    broken.calls = 0
    g, d = SNDCGenerator(8, 4, num_classes=K), SNDCDiscriminator(4, num_classes=K)
    with pytest.raises(UapgenError, match="discriminator's loss became nan"):
        train_gan(g, d, broken, TrainSettings(8), folder=tmp_path, images=80, every=Every(save=16), device="cpu")
    tensors, meta = load_state(tmp_path / "gan.safetensors")
    assert meta["nimg"] == 16 and all(bool(t.isfinite().all()) for t in tensors.values())


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    os.environ["RANK"] = str(rank)  # who writes files
    _run(Path(folder) / "two")
    dist.destroy_process_group()


def _run(folder: Path) -> None:
    g, d = SNDCGenerator(8, 4, num_classes=K), SNDCDiscriminator(4, num_classes=K, head="auxiliary")
    train_gan(g, d, real, TrainSettings(8, relativistic, d_steps=2), folder=folder, images=24, device="cpu")


def test_two_processes_equal_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    _run(tmp_path / "one")
    one, two = (load_state(tmp_path / name / "gan.safetensors")[0] for name in ("one", "two"))
    fresh = SNDCGenerator(8, 4, num_classes=K).state_dict()
    for name, tensor in one.items():
        if "deconvolutions" in name and name.endswith("bias"):
            continue  # batch norm takes it out again: its gradient is rounding alone, which Adam scales up
        atol = 2e-4 if name.endswith("running_mean") else 2e-5  # which does see those biases
        assert torch.allclose(tensor, two[name], rtol=1e-3, atol=atol), name
    moved = max(
        float((one[f"g.{name}"] - tensor).abs().max()) for name, tensor in fresh.items() if tensor.is_floating_point()
    )
    assert moved > 3e-4  # so that equality is not that of two runs that stood still
