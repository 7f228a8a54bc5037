"""Two gloo processes against one: shares of a batch, the methods that craft on them, the victim in the GAN's loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.conftest import small_victim
from uapgen.attacks import craft, find_method
from uapgen.attacks.core.losses import activation_energy, agreement, log_energy
from uapgen.attacks.trm_uap import truncated_ratio
from uapgen.distributed import rows as shares
from uapgen.distributed.rows import summed
from uapgen.errors import UapgenError, UsageError
from uapgen.gan.proxy_gan import ProxyGanSettings, proxy_gan
from uapgen.gan.victim_loss import TermWeights, VictimTerms
from uapgen.proxies import Procedural
from uapgen.runtime import rng
from uapgen.victims import Victim

# Odd batches: shares differ in size. What couples a batch: agreement, energies of a whole batch, stubborn weights.
METHODS: dict[str, dict[str, Any]] = {
    "cbgan": {
        "gan": False,
        "batch": 5,
        "generator_width": 4,
        "pool": 16,
        "candidates": 2,
        "features": 0.5,
        "displacement": 0.5,
        "shuffle": True,
    },
    "cosine-uap": {"batch": 7},
    "fg-uap": {"batch": 7},
    "sga": {"minibatch": 5},
    "psp-uap": {"crops": 5},
    "trm-uap": {"batch": 3},
    "gd-uap": {"prior": "range"},
    "at-uap": {"inner_steps": 1},
    "dm-uap": {"model_steps": 1, "data_steps": 1},
    "nag": {"width": 4, "candidates": 2, "held_out": 6, "batch": 6},
}
BUDGET = 60


def losses_of(victim: Victim, images: Tensor, delta: Tensor) -> Tensor:
    """All that couples a batch, in one number."""
    probe = victim.probe(images + delta, layers=victim.layers())
    weights = torch.arange(1.0, 1 + len(images))
    energies = activation_energy(probe.layers, weights) + log_energy(probe.layers)
    ratio = truncated_ratio(probe.layers, probe.layers[:2], 1.5)
    return energies + ratio + agreement(probe.logits) + agreement(probe.features)


def gradients(victim: Victim) -> dict[str, Tensor]:
    """Of a batch of three, of one that leaves a process of two without a row, and of the victim in the GAN's loop."""
    found = {}
    for n in (1, 3):
        delta = torch.zeros(1, 3, 32, 32, requires_grad=True)
        loss = losses_of(victim, torch.rand(n, 3, 32, 32, generator=rng(0, "images")), delta)
        found[f"loss{n}"] = loss.detach()
        (found[f"gradient{n}"],) = victim.summed(torch.autograd.grad(loss, delta))
    terms = VictimTerms(victim.sharing(False), TermWeights(), every=2, update_every=8)
    fake = torch.rand(8, 3, 16, 16, generator=rng(0, "fake")).requires_grad_(True)
    for nimg in (0, 8, 16):
        loss = terms(fake[shares.rows(8)], nimg)[0]
        if loss.requires_grad:
            (partial,) = torch.autograd.grad(loss, fake)
    found["terms"] = summed([partial])[0] / (dist.get_world_size() if dist.is_initialized() else 1)
    return found | {f"terms.{name}": value for name, value in terms.state_dict().items()}


def run(folder: Path) -> dict[str, Any]:
    victim = small_victim()
    crafted, costs = {}, {}
    for method, params in METHODS.items():
        source = Procedural(32) if find_method(method).images == "driven" else None
        uap = craft(victim, method=method, source=source, budget=BUDGET, seed=1, **params)
        crafted[method] = uap.delta
        costs[method] = {**uap.card["cost"], "effective": uap.card["method"]["effective"]}
    settings = ProxyGanSettings(images=32, victim_every=2, size=32, width=2, latent_dim=8, batch=8)
    gan = proxy_gan(victim.sharing(dist.is_initialized()), Procedural(32), settings, seed=0, folder=folder)
    alike = {"samples": gan.batch(4, rng(0, "look")), "figures": gradients(victim.sharing(dist.is_initialized()))}
    return {"crafted": crafted, "costs": costs, "record": gan.record, **alike}


class Killed(Exception):
    pass


def resumed(folder: Path) -> list[str]:
    """Hashes of a run that was killed in its third stage and goes on, and of one that was not; of two processes."""
    options: dict[str, Any] = {"method": "cbgan", "budget": 120, "seed": 2, **METHODS["cbgan"]}

    def stop(stage: str, spent: int, *_: object) -> None:
        if stage == "refine0" and spent > 80:
            raise Killed

    with pytest.raises(Killed):
        craft(small_victim(), folder=folder / "killed", callback=stop, **options)
    return [craft(small_victim(), folder=folder / name, **options).sha256 for name in ("killed", "whole")]


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "UAPGEN_CACHE": f"{folder}/cache-two"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    with pytest.raises(UapgenError, match="only here"):
        from_main_fails()
    torch.save({**run(Path(folder) / "gan-two"), "resumed": resumed(Path(folder))}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def from_main_fails() -> None:
    from uapgen.distributed import from_main

    def fail() -> None:
        raise UapgenError("only here")

    from_main(fail)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What one process has, and each of two."""
    folder = tmp_path_factory.mktemp("shares")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UAPGEN_CACHE", str(folder / "cache-one"))
        one = run(folder / "gan-one")
    torch.multiprocessing.spawn(_process, (str(folder),), nprocs=2)
    return one, *(torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))


Runs = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_craft_what_one_does(method: str, runs: Runs) -> None:
    one, first, second = (held["crafted"][method] for held in runs)
    assert torch.equal(first, second)
    assert (one.sign() == first.sign()).float().mean() > 0.999
    assert (one - first).abs().median() < 1e-5
    costs = [held["costs"][method] for held in runs]
    assert costs[0] == costs[1] == costs[2]
    assert costs[0]["image_gradients"] >= BUDGET / 2


def test_losses_that_couple_a_batch_have_the_gradient_of_the_whole(runs: Runs) -> None:
    one, first, second = (held["figures"] for held in runs)
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(value, first[name], rtol=1e-4, atol=1e-5 * float(value.abs().max())), name


def test_the_gan_trains_alike(runs: Runs) -> None:
    one, first, second = (held["samples"] for held in runs)
    assert torch.equal(first, second)
    assert torch.allclose(one, first, atol=2e-3)
    records = [held["record"] for held in runs]
    assert records[0]["image_gradients"] == records[1]["image_gradients"] == 16
    assert records[0]["key"] != records[1]["key"]  # other bytes: a cache of their own
    assert records[1] == records[2]


def test_resuming_ends_in_the_same_bytes(runs: Runs) -> None:
    assert runs[1]["resumed"][0] == runs[1]["resumed"][1]
    assert runs[1]["resumed"] == runs[2]["resumed"]


def test_one_process_has_all_rows() -> None:
    x = torch.rand(3, 2)
    assert shares.rows(3) == slice(0, 3)
    assert shares.share(x) is x
    assert shares.whole(x, 3) is x
    assert shares.mean(x) == x.mean()


@pytest.mark.parametrize("method", ["fff", "pd-ua", "sv-uap"])
def test_methods_that_cannot_share_name_those_that_can(method: str) -> None:
    from uapgen.attacks import check_sharing

    check_sharing(method, 1)
    with pytest.raises(UsageError, match=f"^{method} cannot share.*cbgan, cosine-uap"):
        check_sharing(method, 2)
