"""The training loop: resuming to the same bytes, what each step may touch, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from uapgen.errors import UapgenError, UsageError
from uapgen.gan import (
    ClassFrequency,
    Every,
    RunningMean,
    SNResDiscriminator,
    SNResGenerator,
    TrainSettings,
    hinge,
    mean_softmax,
    negentropy,
    train_gan,
)
from uapgen.runfolder import RunFolder, load_state
from uapgen.runtime import module_sha256, rng

CLASSES = 5


def real(n: int, generator: torch.Generator) -> Tensor:
    """Stripes of random colours."""
    colours = torch.rand(n, 3, 1, 4, generator=generator)
    return colours.repeat_interleave(8, dim=3).expand(n, 3, 32, 32)


class InTheLoop:
    """A balance term on a linear victim, with its state: what the flagship plugs in, in small."""

    def __init__(self) -> None:
        self.victim = torch.randn(3 * 32 * 32, CLASSES, generator=rng(0, "victim")) / 10
        self.frequency = ClassFrequency(CLASSES, update_every=12, first_window=1, initial=2)
        self.running = RunningMean(CLASSES, 0.5)
        self.state = {"frequency": self.frequency, "running": self.running}

    def __call__(self, fake: Tensor, nimg: int) -> tuple[Tensor, dict[str, Any]]:
        logits = fake.flatten(1) @ self.victim
        self.frequency.count(logits.argmax(1))
        self.frequency.update()
        loss = negentropy(self.running(mean_softmax(logits)), self.frequency.weights())
        return 5 * loss, {"balance": loss.detach(), "nimg_seen": nimg}

    def describe(self) -> str:
        return "in the loop"


def train(folder: Path | RunFolder, images: int = 64, **options: Any) -> SNResGenerator:
    """`options` are those of `train_gan`, or fields of its settings."""
    extra = InTheLoop()
    given: dict[str, Any] = {"extra_loss": extra, "state": extra.state, "every": Every(12, 20, 32), "device": "cpu"}
    fields: dict[str, Any] = {"batch": 4, "d_steps": 2, "ema_halflife": 20, "ema_start": 16} | options
    given |= {name: fields.pop(name) for name in options if name not in TrainSettings.__dataclass_fields__}
    g, d = SNResGenerator(8, 32, 4), SNResDiscriminator(32, 4)
    return train_gan(g, d, real, TrainSettings(**fields), folder=folder, images=images, **given)


def stop_at(*when: int) -> Any:
    def callback(nimg: int, stats: dict[str, float]) -> None:
        if nimg in when:
            raise KeyboardInterrupt

    return callback


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("gan") / "whole"
    train(folder)
    return folder


@pytest.mark.parametrize("stops", [(4,), (20,), (24,), (12, 36, 60), (64,)])
def test_interrupted_and_continued_ends_in_the_same_bytes(whole: Path, tmp_path: Path, stops: tuple[int, ...]) -> None:
    folder = tmp_path / "run"
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            train(folder, callback=stop_at(stop))
    ema = train(folder)
    assert set(files(folder)) == set(files(whole))
    for name, content in files(folder).items():
        assert content == files(whole)[name], name
    tensors, _ = load_state(whole / "gan.safetensors")
    for name, tensor in ema.state_dict().items():
        assert torch.equal(tensor, tensors[f"ema.{name}"]), name


def test_the_state_holds_everything_that_a_step_reads(whole: Path) -> None:
    tensors, meta = load_state(whole / "gan.safetensors")
    assert meta["nimg"] == 64
    prefixes = {name.split(".")[0] for name in tensors}
    assert prefixes == {"g", "d", "ema", "opt_g", "opt_d", "state"}
    assert any(name.endswith("weight.0._u") for name in tensors)  # spectral norm's power iteration
    assert {"state.frequency.counts", "state.running.mean"} <= set(tensors)
    assert tensors["opt_d.0.step"] == 32  # two steps of D for one of G
    assert tensors["opt_g.0.step"] == 16


def test_log_grid_and_callback(whole: Path, tmp_path: Path) -> None:
    rows = log(whole)
    assert [row["nimg"] for row in rows] == [12, 20, 24, 36, 40, 48, 60, 64]
    assert {"d_loss", "g_loss", "extra_loss", "balance", "d_real", "d_fake"} <= set(rows[0])
    assert rows[0]["nimg_seen"] == pytest.approx((0 + 4 + 8) / 3)  # means over the window
    assert rows[1]["nimg_seen"] == pytest.approx((12 + 16) / 2)  # which a save closes
    assert (whole / "fakes000000032.png").is_file()
    seen = []
    train(tmp_path / "run", images=9, callback=lambda nimg, stats: seen.append((nimg, set(stats))))
    assert [nimg for nimg, _ in seen] == [4, 8, 12]  # rounded up to whole batches
    assert "balance" in seen[0][1]


def test_a_finished_run_returns_at_once_and_a_longer_one_goes_on(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = train(folder, images=40)
    again = train(folder, images=40, callback=stop_at(*range(100)))
    assert module_sha256(first) == module_sha256(again)
    train(folder, images=64)
    one, two = (load_state(place / "gan.safetensors")[0] for place in (folder, whole))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_training_moves_towards_the_real_images(tmp_path: Path) -> None:
    """Real images of one colour: the generator's mean colour must come near it."""
    target = torch.tensor([0.9, 0.2, 0.4]).view(1, 3, 1, 1)

    def plain(n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, 3, 32, 32, generator=generator)
        return (target + 0.02 * noise).clamp(0, 1)

    g, d = SNResGenerator(8, 32, 4), SNResDiscriminator(32, 4)
    z = torch.randn(32, 8, generator=rng(0, "z"))
    before = (g(z).mean((0, 2, 3)) - target.flatten()).abs().max()
    settings = TrainSettings(16, hinge, lr_g=2e-3, lr_d=2e-3, ema_halflife=200.0, ema_start=1000)
    train_gan(g, d, plain, settings, folder=tmp_path, images=1600, device="cpu")
    after = (g(z).mean((0, 2, 3)) - target.flatten()).abs().max()
    assert after.item() < 0.5 * before.item()  # 0.03 to 0.15 of it were seen


def test_the_extra_loss_reaches_the_generator_only(tmp_path: Path) -> None:
    """One step with and without: the discriminator's weights agree, the generator's do not."""
    with_extra = train(tmp_path / "a", images=4, ema_start=100)
    without = train(tmp_path / "b", images=4, ema_start=100, extra_loss=None, state=None)
    assert module_sha256(with_extra) != module_sha256(without)
    a, b = (load_state(tmp_path / name / "gan.safetensors")[0] for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith(("d.", "opt_d.")))


def test_fresh_real_images_for_every_discriminator_step(tmp_path: Path) -> None:
    sums: list[float] = []

    def recorded(n: int, generator: torch.Generator) -> Tensor:
        sums.append(float((images := real(n, generator)).sum()))
        return images

    g, d = SNResGenerator(8, 32, 4), SNResDiscriminator(32, 4)
    train_gan(g, d, recorded, TrainSettings(4, d_steps=3), folder=tmp_path, images=8, device="cpu")
    assert len(sums) == len(set(sums)) == 6


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_last_save(tmp_path: Path) -> None:
    def breaking(fake: Tensor, nimg: int) -> tuple[Tensor, dict[str, float]]:
        return fake.sum() * (float("nan") if nimg == 28 else 0), {}

    with pytest.raises(UapgenError, match=r"generator's extra loss became nan.*lower the learning rates"):
        train(tmp_path, extra_loss=breaking, state=None)
    tensors, meta = load_state(tmp_path / "gan.safetensors")
    assert meta["nimg"] == 20
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    with pytest.raises(UapgenError, match="discriminator's loss became nan"):
        train_gan(
            SNResGenerator(8, 32, 4),
            SNResDiscriminator(32, 4),
            lambda n, generator: torch.full((n, 3, 32, 32), torch.nan),
            TrainSettings(4),
            folder=tmp_path / "other",
            images=8,
            device="cpu",
        )


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.sum() * 0

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return torch.full((4, 3, 32, 32), torch.inf)

    folder = RunFolder(tmp_path, {})
    with pytest.raises(UapgenError, match=r"is not finite after 4 images"):
        train(folder, every=Every(save=4), state=None, extra_loss=lambda fake, nimg: (Exploding.apply(fake), {}))
    assert load_state(tmp_path / "gan.safetensors")[1]["nimg"] == 0


def test_wrong_folders_sizes_and_counts_are_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed"):
        train(whole, seed=1)
    options = json.loads((whole / "options.json").read_text())
    wider, larger = ((SNResGenerator(8, *net), SNResDiscriminator(*net)) for net in ((32, 6), (64, 2)))
    with pytest.raises(UapgenError, match="holds another GAN"):
        train_gan(*wider, real, TrainSettings(4), folder=RunFolder(whole, options), images=80)
    with pytest.raises(UapgenError, match=r"real images are \(4, 3, 32, 32\), the generator's \(4, 3, 64, 64\)"):
        train_gan(*larger, real, TrainSettings(4), folder=tmp_path / "a", images=4)


def narrow(x: Tensor, draws: torch.Generator, *, to: float = 0.5) -> Tensor:
    """An augmentation."""
    return x * to


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": hinge}, "loss = 'relativistic' there, 'hinge' now"),
        ({"augment": narrow}, "augment = None there, 'tests.gan.test_trainer.narrow' now"),
        ({"extra_loss": None, "state": None}, "extra_loss = 'in the loop' there"),
        ({"lr_d": 1e-3}, "lr_d"),
        ({"betas": (0.5, 0.999)}, "betas"),
        ({"auxiliary": 2.0}, "auxiliary"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_folder_is_of_one_training(whole: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        train(whole, **change)


def test_the_arguments_of_a_partial_make_another_run(tmp_path: Path) -> None:
    train(tmp_path, images=4, augment=partial(narrow, to=0.5))
    train(tmp_path, images=8, augment=partial(narrow, to=0.5))
    with pytest.raises(UsageError, match=re.escape("augment.to = 0.5 there, 0.25 now")):
        train(tmp_path, images=8, augment=partial(narrow, to=0.25))


@pytest.mark.parametrize(
    "change",
    [
        {"augment": lambda x, draws: x},
        {"loss": dataclasses.replace(hinge, name=None)},
        {"extra_loss": lambda fake, nimg: (fake.sum(), {}), "state": None},
    ],
)
def test_what_cannot_say_what_it_does_needs_a_folder_that_does(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"cannot say what it does|has no name"):
        train(tmp_path / "a", images=4, **change)
    assert not (tmp_path / "a").exists()
    train(RunFolder(tmp_path / "b", {"mine": 1}), images=4, **change)


def test_the_average_begins_with_the_first_batch_after_its_start(tmp_path: Path) -> None:
    """Start 4: the second batch, which ends at 8, is the first to be averaged, with the weight of one batch."""
    generators = {}
    for images in (4, 8):
        ema = train(tmp_path / str(images), images, ema_start=4, ema_halflife=4)
        tensors, _ = load_state(tmp_path / str(images) / "gan.safetensors")
        generators[images] = {name[2:]: value for name, value in tensors.items() if name.startswith("g.")}
    for name, value in ema.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, (generators[4][name] + generators[8][name]) / 2, atol=1e-7), name


def test_the_generator_gets_latents_that_the_discriminator_did_not_see(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Recorded(SNResGenerator):
        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            seen.append(z)
            return super().forward(z, labels)

    train_gan(Recorded(8, 32, 2), SNResDiscriminator(32, 2), real, TrainSettings(4), folder=tmp_path, images=8)
    assert len(seen) == 4 and len({float(z.sum()) for z in seen}) == 4
