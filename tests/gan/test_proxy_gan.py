"""Every field of the proxy GAN's settings changes its generator, and the key under which it is kept."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import small_victim
from tests.wiring import Change, both, cases
from uapgen.gan.proxy_gan import ProxyGanSettings, proxy_gan
from uapgen.gan.victim_loss import TermWeights
from uapgen.proxies import Procedural
from uapgen.runtime import module_sha256

SMALL = ProxyGanSettings(images=64, victim_every=2, size=32, width=2, latent_dim=8, batch=8, lr=1e-3)

FIELDS = {
    "images": Change(72),
    "victim_every": Change(1),
    "size": Change(64),
    "width": Change(3),
    "latent_dim": Change(12),
    "batch": Change(16),
    "lr": Change(2e-3),
    "effective": Change(False, {"images": 352, "victim_every": 1, "batch": 32}),  # the victim's window is 256 images
    "weights": Change(TermWeights(balance=1.0)),
}
TERMS = {"balance": Change(1.0), "confidence": Change(1.0), "statistics": Change(3.0)}


@pytest.fixture(autouse=True)
def no_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))


@cache
def trained(settings: ProxyGanSettings) -> tuple[str, str]:
    """The generator's hash, and the key."""
    made = proxy_gan(small_victim(), Procedural(32), settings, seed=0, folder=None)
    return module_sha256(made.generator), made.record["key"]


@pytest.mark.parametrize(("field", "change"), cases(ProxyGanSettings, FIELDS))
def test_every_field_changes_the_generator_and_its_key(field: str, change: Change) -> None:
    (one, key), (other, now) = (trained(settings) for settings in both(SMALL, field, change))
    assert one != other and key != now


@pytest.mark.parametrize(("field", "change"), cases(TermWeights, TERMS))
def test_every_weight_of_a_term_changes_the_generator(field: str, change: Change) -> None:
    one, other = both(TermWeights(), field, change)
    assert trained(dataclasses.replace(SMALL, weights=one))[0] != trained(dataclasses.replace(SMALL, weights=other))[0]


def test_a_folder_is_of_one_training(tmp_path: Path) -> None:
    proxy_gan(small_victim(), Procedural(32), SMALL, seed=0, folder=tmp_path / "run")
    held = json.loads((tmp_path / "run" / "options.json").read_text())
    assert held == {
        **json.loads(json.dumps(dataclasses.asdict(SMALL))),
        "seed": 0,
        "real": Procedural(32).describe(),
        "victim": small_victim().weights_sha256,
    }
