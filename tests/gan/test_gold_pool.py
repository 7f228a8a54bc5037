"""The GOLD filter of the flagship's proxies: what it keeps, what it costs, and that it survives a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from uapgen.attacks import craft
from uapgen.errors import UsageError
from uapgen.gan.conditional import Judgement
from uapgen.gan.gold import GoldPool
from uapgen.gan.proxy_gan import GanSource, ProxyGanSettings, proxy_gan
from uapgen.gan.victim_loss import TermWeights
from uapgen.perturbation import Perturbation
from uapgen.proxies import Pool, Procedural
from uapgen.runtime import rng
from uapgen.victims import Victim

SMALL: dict[str, Any] = {
    "gan_from": 0,
    "gan_width": 2,
    "gan_size": 32,
    "gan_batch": 8,
    "gan_latent": 8,
    "candidates": 2,
    "generator_width": 4,
    "pool": 24,
}
TINY_GAN = ProxyGanSettings(32, 2, size=32, width=2, latent_dim=8, batch=8, weights=TermWeights(1, 0, 0))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and small sets where a run would make hundreds of images."""
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    for name in (
        "attacks.cbgan.gan_stage.GAN_POOL",
        "gan.proxy_gan.COVERAGE_IMAGES",
        "attacks.cbgan.refinement.HELD_OUT_IMAGES",
    ):
        monkeypatch.setattr(f"uapgen.{name}", 32)


class Grey(nn.Module):
    """A generator of flat images, as bright as the first latent says."""

    latent_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        return z.sigmoid().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


class Bright(nn.Module):
    """Calls bright images real."""

    def judge(self, x: Tensor, labels: Tensor | None = None) -> Judgement:
        return Judgement(x.mean((1, 2, 3)), None)


def flat_source() -> GanSource:
    networks: Any = Grey(), Bright()
    return GanSource(networks[0], (16, 16), Procedural(16), {"key": "stub"}, networks[1])


def test_the_pool_holds_the_samples_of_highest_gap() -> None:
    """A victim without an opinion leaves the order to the discriminator: the brightest of all drawn are kept."""
    shapes = set()

    def view(images: Tensor) -> Tensor:
        shapes.add(tuple(images.shape[1:]))
        return torch.zeros(len(images), 5)

    pool = GoldPool(flat_source(), view, 10, seed=3, keep=0.25)
    assert shapes == {(3, 16, 16)}
    everything = Pool(flat_source(), 40, 3).images[:, 0, 0, 0]
    assert pool.images.shape == (10, 3, 16, 16)
    assert pool.images[:, 0, 0, 0].tolist() == everything.sort(descending=True).values[:10].tolist()
    assert pool.logits.shape == (40, 5)
    assert pool.describe()["filter"] == {"name": "gold", "keep": 0.25, "drawn": 40}
    assert pool.data_class == "none"
    drawn = (pool.batch(50, rng(0, "draw"))[:, 0, 0, 0] * 255).round()
    assert set(drawn.tolist()) <= set(pool.images[:, 0, 0, 0].tolist())


def test_the_pool_holds_what_the_victim_seldom_sees() -> None:
    """A dark image in forty, of a class of its own, against a discriminator that would put it last."""
    dark = Pool(flat_source(), 40, 3).images[:, 0, 0, 0].float().min() / 255

    def view(images: Tensor) -> Tensor:
        rare = images[:, 0, 0, 0] < dark + 0.003
        return 30 * torch.stack([~rare, rare], 1).float()

    kept = GoldPool(flat_source(), view, 10, seed=3, keep=0.25).images[:, 0, 0, 0]
    assert kept[0] == round(dark.item() * 255)


def test_keeping_everything_is_the_plain_pool_in_another_order() -> None:
    pool = GoldPool(flat_source(), lambda x: torch.zeros(len(x), 2), 40, seed=3, keep=1.0)
    plain = Pool(flat_source(), 40, 3)
    assert pool.images[:, 0, 0, 0].sort().values.tolist() == plain.images[:, 0, 0, 0].sort().values.tolist()


def test_a_pool_needs_a_discriminator() -> None:
    source = flat_source()
    source.discriminator = None
    with pytest.raises(UsageError, match="discriminator"):
        GoldPool(source, lambda x: x, 4, 0, keep=0.5)


def test_the_cache_keeps_the_discriminator(tiny_victim: Victim, tmp_path: Path) -> None:
    steps: list[int] = []

    def made(folder: str) -> GanSource:
        return proxy_gan(
            tiny_victim,
            Procedural(32),
            TINY_GAN,
            seed=0,
            folder=tmp_path / folder,
            callback=lambda n, _: steps.append(n),
            with_discriminator=True,
        )

    def verdict(source: GanSource) -> Tensor:
        assert source.discriminator is not None
        return source.discriminator(source.samples(4, rng(0, "look")))

    first = verdict(made("a"))
    assert torch.equal(verdict(made("b")), first)
    assert len(steps) == 4
    (file,) = (tmp_path / "cache" / "gan").glob("*.discriminator.safetensors")
    file.unlink()  # a cache of a version that kept the generator alone
    plain = proxy_gan(tiny_victim, Procedural(32), TINY_GAN, seed=0, folder=tmp_path / "c")
    assert plain.discriminator is None
    assert len(steps) == 4
    with pytest.warns(UserWarning, match="trained again"):
        again = made("d")
    assert torch.equal(verdict(again), first)
    assert len(steps) == 8


def test_a_filtered_craft_counts_its_looks_and_says_so(tiny_victim: Victim) -> None:
    plain = craft(tiny_victim, budget=400, **SMALL)
    gold = craft(tiny_victim, budget=400, proxy_filter="gold", gold_keep=0.25, **SMALL)
    costs = [uap.card["cost"] for uap in (plain, gold)]
    assert costs[1]["image_gradients"] == costs[0]["image_gradients"] <= 400
    assert costs[1]["image_forwards"] == costs[0]["image_forwards"] + 24 / 0.25
    assert gold.sha256 != plain.sha256
    assert gold.data_class == "none"
    assert gold.card["method"]["params"]["proxy_filter"] == "gold"
    assert plain.card["method"]["params"]["proxy_filter"] == "none"
    parts = gold.card["data"]["sources"][0]["parts"]
    assert parts[1]["filter"] == {"name": "gold", "keep": 0.25, "drawn": 96}
    assert set(gold.card["method"]["notes"]["gold"]) == {"drawn", "kept"}


class Killed(Exception):
    pass


def test_a_filtered_craft_resumes_to_the_same_bytes(
    tiny_victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kwargs: dict[str, Any] = {"budget": 400, "proxy_filter": "gold", **SMALL}
    whole = craft(tiny_victim, folder=tmp_path / "whole", **kwargs)
    whole.save(tmp_path / "whole.safetensors")
    for at in ("gan", "generator", "refine0"):
        monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / f"cache-{at}"))

        def kill(stage: str, *_: object, at: str = at) -> None:
            if stage == at:
                raise Killed

        with pytest.raises(Killed):
            craft(tiny_victim, folder=tmp_path / at, callback=kill, **kwargs)
        craft(tiny_victim, folder=tmp_path / at, **kwargs).save(tmp_path / "resumed.safetensors")
        assert (tmp_path / "resumed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert Perturbation.load(tmp_path / "resumed.safetensors").sha256 == whole.sha256


def test_a_filter_wants_the_gan_at_any_budget(tiny_victim: Victim) -> None:
    asked, anyhow = (craft(tiny_victim, budget=400, proxy_filter="gold", **SMALL | {"gan_from": n}) for n in (401, 0))
    assert asked.sha256 == anyhow.sha256


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"proxy_filter": "silver"}, "expected none or gold"),
        ({"proxy_filter": "gold", "gan": False}, "gan=false"),
        ({"proxy_filter": "gold", "gold_keep": 0.0}, "gold_keep=0.0 is out of range"),
        ({"proxy_filter": "gold", "pool": 0}, "pool=0"),
        ({"proxy_filter": "gold", "budget": 20}, "larger one"),
    ],
)
def test_filters_that_cannot_work_are_refused(params: dict[str, Any], message: str, tiny_victim: Victim) -> None:
    with pytest.raises(UsageError, match=message):
        craft(tiny_victim, **{"budget": 400, **SMALL, **params})
