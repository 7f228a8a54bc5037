"""Generated training data: latents, filter, transformations, shares, frozen and fresh, and what trains on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TINY
from uapgen.errors import UapgenError, UsageError
from uapgen.gan import SNDCGenerator, sample_latents
from uapgen.longtail import LabelledImages, Recipe, train_classifier
from uapgen.longtail.classifier.file import accuracy, confusion
from uapgen.longtail.synthetic import ClassifierFilter, Source, Transform, samplers, train_on
from uapgen.victims import Victim

K = 3
RECIPE = Recipe(depth=8, width=2, loss="ce", deferred=False, epochs=4, batch=8, warmup=0, pad=0, flip=False)


class Brightness(nn.Module):
    """Logits of three classes from the mean of an image: dark, grey, bright; sure away from the borders."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, K)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[-40.0], [0.0], [40.0]]))
            self.linear.bias.copy_(torch.tensor([-16.0, 0.0, -16.0]))  # normalised means: borders at -0.4 and 0.4

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((1, 2, 3)).unsqueeze(1))


@pytest.fixture
def judge() -> Victim:
    return Victim(Brightness(), name="brightness", preprocessing=TINY, device="cpu", precision="fp32")


def grey(n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Even images of random brightness, with labels that are right for two of three."""
    level = torch.rand(n, generator=draws)
    labels = (level * K).long().clamp_max(K - 1)
    wrong = torch.randint(K, (n,), generator=draws)
    labels = torch.where(torch.rand(n, generator=draws) < 0.5, labels, wrong)
    return level.view(n, 1, 1, 1).expand(n, 3, 32, 32).clone(), labels


def constant(level: float) -> object:
    def sample(n: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.full((n, 3, 32, 32), level), torch.randint(K, (n,), generator=draws)

    return sample


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("psi", [0.5, 1.5, 4.0])
def test_truncated_latents_are_a_normal_given_its_support(psi: float) -> None:
    z = sample_latents(2000, 20, draws(), psi=psi)
    assert z.shape == (2000, 20) and z.dtype == torch.float32
    assert 0.97 * min(psi, 3.5) < z.abs().max() <= psi
    tail = torch.special.ndtr(torch.tensor(-psi))
    density = torch.exp(torch.tensor(-(psi**2) / 2)) / (2 * torch.pi) ** 0.5
    variance = 1 - 2 * psi * density / (1 - 2 * tail)  # of a normal distribution cut off on both sides
    assert z.double().var().item() == pytest.approx(float(variance), rel=0.03)
    assert abs(float(z.mean())) < 0.02


def test_a_generator_is_sampled_in_eval_mode_with_even_labels() -> None:
    generator = SNDCGenerator(4, 2, num_classes=K).train()
    (sample,) = samplers([generator], K)
    x, y = sample(300, draws())
    assert not generator.training and x.shape == (300, 3, 32, 32) and not x.requires_grad
    assert torch.bincount(y, minlength=K).min() > 70
    again = sample(300, draws())
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert not torch.equal(samplers([generator], K, psi=0.1)[0](300, draws())[0], x)


def test_generators_of_other_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="generator has 5 classes, the data 3"):
        samplers([SNDCGenerator(4, 2, num_classes=5)], K)
    with pytest.raises(UsageError, match="no classes"):
        samplers([SNDCGenerator(4, 2)], K)
    with pytest.raises(UsageError, match="psi 0"):
        samplers([SNDCGenerator(4, 2, num_classes=K)], K, psi=0)


def test_the_filter_keeps_only_sure_agreement_and_fills_the_batch(judge: Victim) -> None:
    x, y = Source((grey,), K, keep=ClassifierFilter(judge, 0.9)).batch(64, draws())
    assert len(x) == len(y) == 64
    probability = judge(x.float() / 255).softmax(1)
    assert torch.equal(probability.argmax(1), y) and float(probability.gather(1, y[:, None]).min()) >= 0.9
    raw_x, raw_y = Source((grey,), K).batch(64, draws())
    kept = ClassifierFilter(judge, 0.9).accepts(raw_x, raw_y)
    assert 0 < int(kept.sum()) < 64  # the filter had something to do
    assert torch.equal(x[: int(kept.sum())], raw_x[kept])  # and threw nothing away that passed


def test_a_starving_filter_names_the_rates_of_its_classes(judge: Victim) -> None:
    source = Source((constant(0.1),), K, keep=ClassifierFilter(judge, 0.9, tries=20))  # type: ignore[arg-type]
    with pytest.raises(UapgenError, match=r"kept \d+ of 90 samples.*0: 100.0%, 1: 0.0%, 2: 0.0%"):
        Source((constant(0.1),), K, keep=dataclasses.replace(source.keep, tries=1)).batch(90, draws())  # type: ignore
    assert len(source.batch(9, draws())[0]) == 9
    never = ClassifierFilter(judge, 1.0, tries=2)
    with pytest.raises(UapgenError, match="kept 0 of 20 samples, and a batch needs 10"):
        Source((constant(0.3),), K, keep=never).batch(10, draws())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"threshold 1\.5"):
        ClassifierFilter(judge, 1.5)
    with pytest.raises(UsageError, match="classifier has 3 classes, the images 4"):
        Source((grey,), 4, keep=never)


def test_the_filter_sees_transformed_images(judge: Victim) -> None:
    """Bright images become darker by black borders: some cross the border between classes, and are thrown away."""
    source = Source((constant(0.85),), K, transform=Transform(pad=12), keep=ClassifierFilter(judge, 0.9))  # type: ignore[arg-type]
    x, y = source.batch(40, draws())
    assert torch.equal(judge(x.float() / 255).argmax(1), y) and len(y.unique()) > 1


def test_transformations_are_crops_and_flips_of_8_bit_images() -> None:
    def ramp(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.linspace(0.1, 1.2, 32).expand(n, 3, 32, 32), torch.zeros(n, dtype=torch.int64)

    plain = Source((ramp,), K).batch(50, draws())[0]
    assert plain.dtype == torch.uint8 and torch.equal(
        plain[0, 0, 0], (torch.linspace(0.1, 1.2, 32).clamp_max(1) * 255).round().byte()
    )
    moved = Source((ramp,), K, transform=Transform(pad=4)).batch(50, draws())[0]
    assert (moved[:, 0, 16, 16].float() - plain[:, 0, 16, 16].float()).abs().max() < 255 * 4.5 * 1.1 / 31
    rising = (moved[:, 0, 16, 24] > moved[:, 0, 16, 8]).float().mean()
    assert rising == 1
    flipped = Source((ramp,), K, transform=Transform(pad=0, flip=True)).batch(50, draws())[0]
    mirrored = (flipped[:, 0, 16, 24] < flipped[:, 0, 16, 8]).float().mean()
    assert 0.2 < mirrored < 0.8


def test_shares_are_the_chance_of_each_generator_and_a_batch_is_of_one() -> None:
    levels = [0.0, 0.5, 1.0]
    samples = tuple(constant(level) for level in levels)
    for shares, expected in ((None, [1 / 3] * 3), ((0.75, 0.25, 0.0), [0.75, 0.25, 0.0])):
        source, g, counts = Source(samples, K, shares=shares), draws(), torch.zeros(3)  # type: ignore[arg-type]
        for _ in range(600):
            x, _y = source.batch(2, g)
            assert len(x.unique()) == 1
            counts[int(x.flatten()[0].float().div(127).round())] += 1
        torch.testing.assert_close(counts / 600, torch.tensor(expected), atol=0.07, rtol=0)


def test_a_topped_up_batch_is_of_one_generator_too(judge: Victim) -> None:
    source = Source((constant(0.2), constant(0.8)), K, keep=ClassifierFilter(judge))  # type: ignore[arg-type]
    seen = {int(source.batch(20, draws(seed))[0].float().mean()) for seed in range(12)}
    assert seen == {51, 204}


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.0,), (1.5, -0.5), (float("nan"), 1.0)])
def test_shares_that_are_no_probabilities_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="that sum to 1"):
        Source((grey, grey), K, shares=shares)


def test_a_fixed_set_is_frozen_and_a_stream_is_not() -> None:
    source = Source((grey,), K, transform=Transform(pad=4))
    one, two = (source.dataset(50, batch=8, seed=0, name="fixed") for _ in range(2))
    assert len(one) == 50 and one.sha256 == two.sha256
    assert one.sha256 != source.dataset(50, batch=8, seed=1, name="fixed").sha256
    stream = source.stream(50, batch=8, seed=0, name="fresh")
    epochs = [torch.cat([x for x, _ in stream.batches(epoch)]) for epoch in (0, 1, 0)]
    assert len(epochs[0]) == 50 and torch.equal(epochs[0], epochs[2]) and not torch.equal(epochs[0], epochs[1])
    with pytest.raises(UsageError, match="0 generated images"):
        source.dataset(0, batch=8, seed=0, name="none")


def test_a_fixed_set_reaches_the_network_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every epoch shows the very images of the set, in another order."""
    data = Source((grey,), K, transform=Transform(pad=4)).dataset(24, batch=8, seed=0, name="fixed")
    seen: list[Tensor] = []
    from uapgen.longtail import classifier

    original = classifier._Step.batches

    def spy(step: classifier._Step, g: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        parts = list(original(step, g))
        seen.append(torch.cat([x for x, _ in parts]))
        return parts

    monkeypatch.setattr(classifier._Step, "batches", spy)
    train_on(data, dataclasses.replace(RECIPE, epochs=2), folder=tmp_path, test=data, device="cpu")
    assert len(seen) == 2 and not torch.equal(*seen)
    for epoch in seen:
        assert sorted(map(bytes, epoch.flatten(1).numpy())) == sorted(map(bytes, data.images.flatten(1).numpy()))


class Stop(Exception):
    pass


def test_best_and_last_and_the_same_bytes_after_an_interruption(tmp_path: Path) -> None:
    stream = Source((grey,), K).stream(24, batch=8, seed=0, name="fresh")
    test = LabelledImages(*Source((grey,), K).batch(40, draws(9)), K, "test")
    outcome = train_on(stream, RECIPE, folder=tmp_path / "whole", test=test, device="cpu", precision="fp32")
    assert outcome.epochs == 4 and 0 <= outcome.last_accuracy <= outcome.best_accuracy <= 1
    assert outcome.last_accuracy == pytest.approx(accuracy(confusion(outcome.classifier, test)))

    def stop(epoch: int, stats: dict[str, float]) -> None:
        if epoch == 3:
            raise Stop

    settings = {"test": test, "test_every": 1, "device": "cpu", "precision": "fp32"}
    with pytest.raises(Stop):
        train_classifier(stream, RECIPE, folder=tmp_path / "cut", save_every=2, callback=stop, **settings)  # type: ignore[arg-type]
    again = train_on(stream, RECIPE, folder=tmp_path / "cut", test=test, device="cpu", precision="fp32")
    assert (again.best_accuracy, again.best_epoch) == (outcome.best_accuracy, outcome.best_epoch)
    for name in ("classifier.safetensors", "training.safetensors", "options.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


class Undecided(nn.Module):
    """The same logits for every image: probabilities 1/2, 3/8, 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, K)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.copy_(torch.tensor([4.0, 3.0, 1.0]).log())

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x[:, 0, 0, :1])


def test_the_filter_wants_the_first_class_and_its_probability() -> None:
    victim = Victim(Undecided(), name="undecided", preprocessing=TINY, device="cpu", precision="fp32")
    images, labels = torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 2])
    probability = float(victim(images.float()).softmax(1)[0, 0])
    for threshold, kept in ((0.3, True), (probability, True), (0.51, False)):  # 3/8 is enough, and not the largest
        assert ClassifierFilter(victim, threshold).accepts(images, labels).tolist() == [kept, False, False]
