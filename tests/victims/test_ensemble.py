"""Several victims as one: closed forms, what its parts show, and the card."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import SEED, TINY, gratings, tiny_net
from uapgen.attacks import craft
from uapgen.errors import UsageError
from uapgen.proxies import Procedural
from uapgen.victims import Ensemble, Preprocessing, Victim, split_specs


def member(seed: int, size: int = 32, classes: int = 10) -> Victim:
    torch.manual_seed(seed + SEED)
    own = TINY if size == 32 else Preprocessing(input_size=(3, size, size), mean=(0.1,) * 3, std=(0.3,) * 3)
    net = tiny_net(classes, width=4)
    return Victim(net, name=f"net{seed}", preprocessing=own, device="cpu", precision="fp32")


def test_the_mean_of_logits_each_with_its_own_preprocessing() -> None:
    one, other = member(0), member(1, size=16)
    both = Ensemble([one, other])
    x, _ = gratings(4, seed=5)
    small = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(both(x), (one(x) + other(small)) / 2, rtol=1e-4, atol=1e-5)
    assert (both.input_size, both.num_classes, both.name) == (one.input_size, 10, "net0+net1")
    probe = both.probe(x, layers=both.layers()[:2])
    torch.testing.assert_close(
        probe.features, torch.cat([one.features(x), other.features(small)], 1), rtol=1e-4, atol=1e-5
    )
    assert [layer.shape[-1] for layer in probe.layers] == [32, 16]  # the first of each
    assert len(both.layers()) == len(one.layers()) + len(other.layers())
    assert len(both.batch_norms()) == len(one.batch_norms()) + len(other.batch_norms())


@pytest.mark.parametrize("method", ["cosine-uap", "fg-uap", "trm-uap", "dm-uap", "uap"])
def test_methods_run_and_the_card_names_the_members(method: str) -> None:
    one, other = member(0), member(1)
    both = Ensemble([one, other])
    uap = craft(both, method=method, source=Procedural((32, 32), "cpu"), budget=48)
    assert [entry["name"] for entry in uap.card["victim"]["members"]] == ["net0", "net1"]
    assert uap.facts.crafted_on(one.weights_sha256)
    assert uap.facts.crafted_on(both.weights_sha256)
    assert not uap.facts.crafted_on(member(2).weights_sha256)
    assert both.weights_sha256 not in (one.weights_sha256, other.weights_sha256)


def test_members_must_agree() -> None:
    with pytest.raises(UsageError, match="net0 has 10 classes on cpu, net1 has 7 on cpu"):
        Ensemble([member(0), member(1, classes=7)])
    with pytest.raises(UsageError, match="an ensemble of 1 victims"):
        Ensemble([member(0)])


def test_options_stay_with_their_victim() -> None:
    assert split_specs("tv/vgg16,timm/a:random,pad_type=same,mean=0.5,tv/b") == [
        "tv/vgg16",
        "timm/a:random,pad_type=same,mean=0.5",
        "tv/b",
    ]
