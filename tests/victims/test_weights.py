"""Weight files that load, weight files that must not, and victims that misbehave."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from uapgen.errors import UapgenError
from uapgen.victims import Preprocessing, Victim, check_victim
from uapgen.victims.weights import load_into, read_state_dict


@pytest.fixture(autouse=True)
def same_nets_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield


def small_net(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def write(path: Path, kind: str, net: nn.Module) -> Path:
    state = net.state_dict()
    floats = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    contents = {
        "plain.pth": state,
        "checkpoint.pth": {"state_dict": state, "epoch": 3},
        "model.pt": {"model": state},
        "parallel.pth": {f"module.{key}": tensor for key, tensor in state.items()},
        "counterless.pth": {key: tensor for key, tensor in state.items() if "num_batches" not in key},
        "half.safetensors": floats,
        "bf16.safetensors": {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()},
    }
    path = path / kind
    save_file(contents[kind], path) if kind.endswith("safetensors") else torch.save(contents[kind], path)
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "plain.pth",
        "checkpoint.pth",
        "model.pt",
        "parallel.pth",
        "counterless.pth",
        "half.safetensors",
        "bf16.safetensors",
    ],
)
def test_weight_files_load_into_float32(tmp_path: Path, kind: str) -> None:
    source, target = small_net(), small_net()
    load_into(target, write(tmp_path, kind, source))
    cast = {"half.safetensors": torch.float16, "bf16.safetensors": torch.bfloat16}.get(kind, torch.float32)
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs.to(cast).float())


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = small_net().state_dict()
    state["0.weigth"] = state.pop("0.weight")
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UapgenError, match=r"1 missing \(0.weight\); 1 unexpected \(0.weigth\)"):
        load_into(small_net(), tmp_path / "a.safetensors")
    with pytest.raises(UapgenError, match="num_classes=4"):
        load_into(small_net(7), write(tmp_path, "plain.pth", small_net(4)))
    state = {k: v.to(torch.int8) for k, v in small_net().state_dict().items()}
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(UapgenError, match="not floating point"):
        load_into(small_net(), tmp_path / "b.safetensors")


class Executes:
    """What a hostile pickle does: loading it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


# The end of a zip archive (64-bit locator, then record) that claims to lie on two disks, at which is_zipfile raises.
TWO_DISKS = b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 2) + b"PK\x05\x06" + b"\0" * 18


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"not weights at all, only text", "no weight file"),
        (b"PK\x03\x04" + b"\0" * 100, "cut short"),
        (b"PK\x03\x04" + TWO_DISKS, "cut short"),
        ((1000).to_bytes(8, "little") + b'{"a":', "cut short"),
        ((5).to_bytes(8, "little") + b"{]]]]", "damaged"),
        (b"\x80\x02K\x01.", "re-save"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UapgenError, match=message) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_a_pickle_never_runs(tmp_path: Path) -> None:
    torch.save({"state_dict": Executes(tmp_path / "made")}, tmp_path / "evil.pth")
    torch.save(small_net(), tmp_path / "module.pth")
    for name in ("evil.pth", "module.pth"):
        with pytest.raises(UapgenError, match="pickles more than tensors"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for name in ("plain.pth", "half.safetensors"):
        whole = write(tmp_path, name, small_net()).read_bytes()
        for length in (9, len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut").write_bytes(whole[:length])
            with pytest.raises(UapgenError):
                read_state_dict(tmp_path / "cut")


class Last(nn.Module):
    """A small net whose logits go through `function`."""

    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.net, self.function = small_net(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.net(x))


@pytest.mark.parametrize(
    ("function", "warning"),
    [
        (lambda z: z.softmax(1), "probabilities"),
        (lambda z: z.detach(), "gradient is zero"),
        (lambda z: (10 * z).round(), "gradient is zero"),
        (lambda z: z + torch.randn_like(z), "is random"),
        (lambda z: (0 * z).sqrt() + z, "not finite"),
        (lambda z: z, None),
    ],
)
def test_check_victim(function, warning: str | None) -> None:  # type: ignore[no-untyped-def]
    victim = Victim(Last(function), preprocessing=Preprocessing(input_size=(3, 16, 16)), device="cpu")
    warnings = check_victim(victim)
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


def test_check_victim_refuses_nan() -> None:
    victim = Victim(Last(lambda z: z / 0), preprocessing=Preprocessing(input_size=(3, 16, 16)), device="cpu")
    with pytest.raises(UapgenError, match="non-finite"):
        check_victim(victim)
