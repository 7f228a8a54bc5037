"""Published weights: read from the caches without a network, and refused at once when they are nowhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from click.testing import CliRunner
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from uapgen.errors import UapgenError
from uapgen.runtime import module_sha256
from uapgen.victims import load_victim, network
from uapgen.victims.spec import EMBEDDED

TINY_TIMM = "test_resnet"


@pytest.fixture(autouse=True)
def same_nets_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield


@pytest.fixture
def tiny_timm() -> nn.Module:
    """timm's own test network with weights that are not the seed-0 ones."""
    return timm.create_model(TINY_TIMM).eval()


@pytest.fixture
def hub(tmp_path: Path, tiny_timm: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds `timm/test_resnet.r160_in1k`, as the hub client lays it out."""
    home = tmp_path / "hf"
    repo = home / "hub" / f"models--timm--{TINY_TIMM}.r160_in1k"
    snapshot = repo / "snapshots" / ("0" * 40)
    for folder in (repo / "blobs", repo / "refs", snapshot):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    save_file(tiny_timm.state_dict(), repo / "blobs" / "weights")
    config = {"architecture": TINY_TIMM, "num_classes": 1000, "pretrained_cfg": {**tiny_timm.pretrained_cfg}}
    (repo / "blobs" / "config").write_text(json.dumps(config))
    (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
    (snapshot / "config.json").symlink_to("../../blobs/config")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    return home


def test_hub_cache_is_read_offline_by_a_fresh_process(hub: Path, tiny_timm: nn.Module) -> None:
    environment = {**os.environ, "HF_HOME": str(hub), "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "uapgen", "victims", "show", TINY_TIMM, "--json", "--device", "cpu"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    card = json.loads(run.stdout)
    assert card["name"] == f"timm/{TINY_TIMM}.r160_in1k"
    assert card["weights_sha256"] == module_sha256(tiny_timm)
    assert card["input_size"] == [3, 160, 160]
    assert "r160_in1k" in run.stderr


def test_hub_repository_and_local_folder(hub: Path, tiny_timm: nn.Module, tmp_path: Path) -> None:
    victim = load_victim(f"hf-hub:timm/{TINY_TIMM}.r160_in1k", device="cpu", offline=True)
    assert victim.weights_sha256 == module_sha256(tiny_timm)
    snapshot = next((hub / "hub").glob("*/snapshots/*"))
    shutil.copytree(snapshot, tmp_path / "saved")
    local = load_victim(f"local-dir:{tmp_path / 'saved'}", device="cpu", offline=True)
    assert (local.name, local.weights_sha256) == ("local-dir:saved", victim.weights_sha256)
    assert local.preprocessing == victim.preprocessing


def test_cached_weights_cost_no_request(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def look_up(*arguments: object, **more: object) -> None:
        asked.append(arguments)
        raise OSError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    load_victim(TINY_TIMM, device="cpu")
    assert asked == []
    assert constants.HF_HUB_OFFLINE is False


def test_a_published_classifier_is_never_replaced_by_a_random_one(hub: Path) -> None:
    with pytest.raises(UapgenError, match="would be random"):
        load_victim(f"timm/{TINY_TIMM}:num_classes=10", device="cpu", offline=True)


def test_damaged_cache_names_the_file(hub: Path) -> None:
    blob = next((hub / "hub").glob("*/blobs/weights"))
    blob.write_bytes(blob.read_bytes()[:-100])
    with pytest.raises(UapgenError, match=r"model\.safetensors is damaged or cut short"):
        load_victim(f"timm/{TINY_TIMM}", device="cpu", offline=True)


@pytest.mark.parametrize("spec", ["resnet50", "tv/alexnet", "hf-hub:some/body"])
@pytest.mark.parametrize("offline", [True, False])
def test_missing_weights_fail_at_once(
    spec: str, offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def silent(*arguments: object) -> None:
        time.sleep(4)  # a firewall that drops packets, or a name server that does not answer
        raise TimeoutError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", silent)
    started = time.monotonic()
    with pytest.raises(UapgenError, match="embedded/efficientnet_lite0") as error:
        load_victim(spec, device="cpu", offline=offline)
    assert time.monotonic() - started < 2
    assert ("switched off" in str(error.value)) == offline
    assert ("--weights FILE" in str(error.value)) == (not spec.startswith("hf-hub"))


def test_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert network.reachable(f"http://127.0.0.1:{port}/x")
        monkeypatch.setattr(network, "getproxies", lambda: {"https": f"http://127.0.0.1:{port}"})
        monkeypatch.setattr(network, "proxy_bypass", lambda host: False)
        assert network.reachable("https://nowhere.invalid/x")
    assert not network.reachable("https://nowhere.invalid/x")


def test_list_and_check(hub: Path) -> None:
    from uapgen.cli.victims import command

    run = CliRunner().invoke(command, ["list", "*", "--json"])
    listed = {row["name"]: row["weights"] for row in json.loads(run.stdout)}
    names = list(listed)
    assert names[: len(EMBEDDED)] == [f"embedded/{name}" for name in EMBEDDED]
    assert listed[f"timm/{TINY_TIMM}.r160_in1k"] == "here"
    assert listed["timm/resnet50.a1_in1k"] == "download"
    assert "tv/googlenet" in names
    assert "tv/resnet50" not in names  # timm has it
    run = CliRunner().invoke(command, ["list", TINY_TIMM, "--here"])
    assert run.stdout.split() == [f"timm/{TINY_TIMM}.r160_in1k", "here"]
    run = CliRunner().invoke(command, ["check", f"{TINY_TIMM}:random", "--device", "cpu"])
    assert run.stdout == f"timm/{TINY_TIMM}:random: finite logits, image gradients, repeatable answers\n"
