"""Image sources: determinism, range, shapes, data classes, and the statistics that each one promises."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from uapgen.errors import UapgenError, UsageError
from uapgen.proxies import (
    ColouredBlocks,
    DeadLeaves,
    DeltaCrops,
    Folder,
    GaussianPrior,
    JigsawPrior,
    Mixture,
    PinkNoise,
    Procedural,
    ProxySource,
    combined_class,
    parse_source,
)
from uapgen.proxies.base import colours, power_law_fields
from uapgen.proxies.priors import median3
from uapgen.runtime import rng

SYNTHETIC = ["procedural", "dead-leaves", "blocks", "pink-noise", "jigsaw", "gaussian"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five flat pictures, one in a sub-folder, and things that are not pictures."""
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(["b.png", "a.jpg", "sub/c.png", "d.PNG", "e.bmp"]):
        Image.new("RGB", (40, 30), (50 * number, 10, 200)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,label\n")
    (tmp_path / "sub" / ".hidden.png").write_bytes(b"")
    return tmp_path


def spectral_slope(images: Tensor, low: float = 4, high: float = 48) -> float:
    """Exponent of the radially averaged power spectrum of the luminance between two frequencies (cycles per image)."""
    grey = images.mean(1)
    grey = grey - grey.mean((1, 2), keepdim=True)
    power = torch.fft.fft2(grey).abs().square().mean(0)
    f = torch.fft.fftfreq(grey.shape[-1]) * grey.shape[-1]
    radius = (f.view(-1, 1).square() + f.square()).sqrt()
    at_low, at_high = (power[(radius > 0.8 * k) & (radius < 1.2 * k)].mean() for k in (low, high))
    return float((at_high / at_low).log()) / math.log(high / low)


@pytest.mark.parametrize("size", [32, (48, 31), (150, 224)])
@pytest.mark.parametrize("spec", SYNTHETIC)
def test_images_are_in_range_and_depend_on_the_generator_only(spec: str, size: int | tuple[int, int]) -> None:
    source = parse_source(spec, size)
    images = source.batch(3, rng(0))
    h, w = (size, size) if isinstance(size, int) else size
    assert images.shape == (3, 3, h, w)
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, parse_source(spec, size).batch(3, rng(0)))
    assert not torch.equal(images, source.batch(3, rng(1)))
    assert not torch.equal(images[0], images[1])
    assert source.data_class == "none"
    assert source.describe()["source"]


def test_global_random_state_is_untouched() -> None:
    before = torch.random.get_rng_state()
    for spec in SYNTHETIC:
        parse_source(spec, 32).batch(2, rng(0))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_power_law_fields_have_the_exponent_asked_for(exponent: float) -> None:
    fields = power_law_fields((128, 128), torch.full((16,), exponent), rng(0))
    assert spectral_slope(fields) == pytest.approx(-2 * exponent, abs=0.1)
    assert torch.allclose(fields.mean((2, 3)), torch.zeros(16, 1), atol=1e-5)
    assert torch.allclose(fields.std((2, 3)), torch.ones(16, 1), atol=1e-4)


def test_stretched_fields_have_streaks_along_their_angle() -> None:
    angle = torch.tensor([0.0, math.pi / 2])
    fields = power_law_fields((64, 64), torch.ones(2), rng(0), angle=angle, stretch=torch.full((2,), 8.0))[:, 0]
    along_x, along_y = fields.diff(dim=2).square().mean((1, 2)), fields.diff(dim=1).square().mean((1, 2))
    assert along_x[0] < 0.5 * along_y[0]
    assert along_y[1] < 0.5 * along_x[1]


def test_dead_leaves_fall_off_like_photographs() -> None:
    images = DeadLeaves(192).batch(24, rng(0))
    assert -3.2 < spectral_slope(images) < -2.0  # the power of natural images falls with an exponent around -2
    deviations = (images - images.mean((2, 3), keepdim=True)).movedim(1, 0).flatten(1)
    assert torch.corrcoef(deviations).min() > 0.6  # colour channels of photographs agree


def test_pink_noise_exponent_is_that_of_the_range() -> None:
    images = PinkNoise(128, exponent=(1.0, 1.0)).batch(24, rng(0))
    assert spectral_slope(images) == pytest.approx(-2, abs=0.25)  # clipping costs a little


def test_colours_vary_most_in_brightness_and_least_between_green_and_magenta() -> None:
    sample = colours((20000,), rng(0))
    brightness = sample.mean(1).std()
    red_blue = (sample[:, 0] - sample[:, 2]).std() / 2**0.5
    green = (2 * sample[:, 1] - sample[:, 0] - sample[:, 2]).std() / 6**0.5
    assert brightness > red_blue > green > 0.02


def test_blocks_are_piecewise_constant() -> None:
    image = ColouredBlocks(64).batch(1, rng(0))[0]
    flat = (image.diff(dim=1).abs().amax(0) == 0).float().mean()
    assert 0.5 < flat < 1
    assert len(torch.unique(image.flatten(1), dim=1).T) < 64 * 64 / 4


@pytest.mark.parametrize("cuts", [1, 4])
def test_jigsaw_has_cuts_plus_one_cells_per_axis_at_most(cuts: int) -> None:
    images = JigsawPrior((60, 90), frequency=cuts, smooth=False).batch(4, rng(0))
    for image in images:
        assert 1 < len(torch.unique(image.flatten(1), dim=1).T) <= (cuts + 1) ** 2
        assert len(torch.unique(image, dim=1)[0]) <= cuts + 1  # distinct rows


def test_jigsaw_frequency_can_follow_a_curriculum() -> None:
    source = JigsawPrior(60, frequency=(1, 8), smooth=False)
    few, many = (len(torch.unique(source.batch(1, rng(0), frequency=k)[0].flatten(1), dim=1).T) for k in (1, 20))
    assert few <= 4 < many


def test_median_removes_a_speck_and_keeps_an_edge() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[..., 5:] = 1
    speckled = image.clone()
    speckled[0, 0, 4, 2] = 1
    assert torch.equal(median3(speckled), image)


def test_gaussian_spread_is_the_one_asked_for() -> None:
    images = GaussianPrior(128, std=10.0).batch(8, rng(0)) * 255
    assert torch.allclose(images.std((0, 2, 3)), torch.tensor([10.0, 20.0, 30.0]), rtol=0.02)
    assert images.mean() == pytest.approx(127.5, abs=0.2)
    wide = GaussianPrior(64, std=(1.0, 2.0)).batch(2, rng(0), std=60.0)
    assert wide[:, 0].std() * 255 == pytest.approx(58, abs=3)  # clipping takes some


@pytest.mark.parametrize("wrong", [{"frequency": 0}, {"frequency": (5, 2)}])
def test_prior_ranges_are_checked(wrong: dict) -> None:
    with pytest.raises(UsageError, match="frequency="):
        JigsawPrior(32, **wrong)


def test_delta_crops_follow_the_current_delta_without_its_gradient() -> None:
    delta = torch.zeros(3, 32, 32, requires_grad=True)
    source = DeltaCrops(GaussianPrior(32), lambda: delta, crops=4)
    before = source.batch(8, rng(0))
    with torch.no_grad():
        delta += 0.04
    after = source.batch(8, rng(0))
    assert not after.requires_grad
    assert (after - before).mean() == pytest.approx(0.04, abs=0.01)
    with torch.no_grad():
        delta += 0.96
    assert source.batch(8, rng(0)).max() <= 1
    assert DeltaCrops(GaussianPrior(32), lambda: delta, clip=False).batch(8, rng(0)).max() > 1.2
    assert source.describe()["prior"]["source"] == "gaussian"


class Flat:
    """A source of one grey, for counting."""

    def __init__(self, grey: float, data_class: str) -> None:
        self.grey, self.data_class = grey, data_class

    def describe(self) -> dict:
        return {"source": "flat", "grey": self.grey}

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.full((n, 3, 8, 8), self.grey)


def test_mixture_follows_its_weights_and_is_shuffled() -> None:
    images = Mixture([(Flat(0.0, "none"), 3), (Flat(1.0, "proxy"), 1)]).batch(4000, rng(0))[:, 0, 0, 0]
    assert images.mean() == pytest.approx(0.25, abs=0.03)
    assert images[:2000].mean() == pytest.approx(0.25, abs=0.04)


def test_data_class_is_that_of_the_source_that_saw_most() -> None:
    none, proxy, driven = (Flat(0, name) for name in ("none", "proxy", "driven"))
    assert combined_class([]) == "none"
    assert combined_class([none, proxy]) == "proxy"
    assert combined_class([driven, proxy, none]) == "driven"
    assert Mixture([(none, 1), (Mixture([(driven, 1), (none, 1)]), 0)]).data_class == "driven"
    assert Procedural(32).data_class == "none"
    assert DeltaCrops(proxy, lambda: torch.zeros(3, 8, 8)).data_class == "proxy"


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0]])
def test_mixture_refuses_weights_that_mean_nothing(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights"):
        Mixture([(Flat(0, "none"), weight) for weight in weights])


def test_folder_reads_every_picture_in_order(pictures: Path) -> None:
    source = parse_source(f"folder:{pictures}", (16, 24))
    assert isinstance(source, Folder)
    assert source.images.names == ["a.jpg", "b.png", "d.PNG", "e.bmp", "sub/c.png"]
    assert source.data_class == "proxy"
    assert source.pixels.dtype == torch.uint8
    assert source.pixels[1, 0, 0, 0] == 0
    images = source.batch(64, rng(0))
    assert images.shape == (64, 3, 16, 24)
    assert torch.equal(images, source.batch(64, rng(0)))
    assert len(images[:, 0, 0, 0].unique()) == 5
    assert torch.allclose(images[:, 2], torch.tensor(200 / 255), atol=0.02)


def test_folder_says_what_it_holds(pictures: Path) -> None:
    source = parse_source(f"driven:{pictures}", 16)
    card = source.describe()
    assert source.data_class == "driven"
    assert (card["n"], card["name"]) == (5, pictures.name)
    (pictures / "b.png").rename(pictures / "bb.png")
    assert parse_source(f"driven:{pictures}", 16).describe()["list_sha256"] != card["list_sha256"]


def test_float_transforms_are_rounded_not_truncated(pictures: Path) -> None:
    source = Folder(pictures, lambda image: torch.full((3, 8, 8), 0.999))
    assert source.pixels.unique().tolist() == [255]


def test_folder_errors_name_the_file(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(UapgenError, match=r"broken\.png cannot be read"):
        parse_source(f"folder:{pictures}", 16).batch(1, rng(0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UapgenError, match="holds no image"):
        parse_source(f"folder:{tmp_path / 'empty'}", 16)
    with pytest.raises(UapgenError, match="is not there; expected a folder"):
        parse_source("folder:/no/such/folder", 16)
    with pytest.raises(UsageError, match="'proxy' or 'driven', not 'none'"):
        Folder(pictures, lambda image: torch.zeros(3, 8, 8), data_class="none")


def test_folder_refuses_transforms_that_keep_sizes(pictures: Path) -> None:
    Image.new("RGB", (50, 50)).save(pictures / "z.png")
    (pictures / "sub" / "c.png").unlink()
    source = Folder(pictures, lambda image: torch.zeros(3, image.height, image.width))
    with pytest.raises(UapgenError, match=r"z\.png.*one size"):
        source.batch(1, rng(0))


@pytest.mark.parametrize(
    ("spec", "message"), [("jigsw", "did you mean 'jigsaw'"), ("folder:", "folder:DIR"), ("blocks:x", "blocks")]
)
def test_unknown_specs_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_source(spec, 32)


def test_tiny_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="4x4"):
        parse_source("procedural", 4)


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SYNTHETIC)
def test_gpu_draws_what_the_cpu_draws(spec: str) -> None:
    here: ProxySource = parse_source(spec, 64)
    there: ProxySource = parse_source(spec, 64, "cuda")
    difference = (here.batch(4, rng(0)) - there.batch(4, rng(0)).cpu()).abs()
    assert difference.mean() < 1e-3  # a pixel on a leaf's edge may fall on the other side
