"""Victims that are programs in files: ONNX, torch.export, TorchScript."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import tiny_net
from uapgen.attacks import craft
from uapgen.errors import UapgenError, UsageError
from uapgen.proxies import Procedural
from uapgen.victims import Preprocessing, Victim, load_victim

PIXELS = 3 * 8 * 8
OPTIONS = "mean=0.5,std=0.25,input_size=8"
WEIGHT = torch.randn(PIXELS, 4, generator=torch.Generator().manual_seed(0))


def field(number: int, value: bytes | int | str) -> bytes:
    """One protobuf field: varints for integers, length-delimited otherwise."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(n: int) -> bytes:
    return bytes([n & 127 | (128 if n > 127 else 0)]) + (varint(n >> 7) if n > 127 else b"")


def onnx_file(path: Path, batch: int | None) -> None:
    """y = flatten(x) @ WEIGHT as ONNX (onnx.proto3, IR version 8, opset 13)."""

    def value(name: str, *sizes: int | None) -> bytes:
        dims = b"".join(field(1, field(2, "B") if size is None else field(1, size)) for size in sizes)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    def node(kind: str, inputs: list[str], output: str) -> bytes:
        return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)

    raw = struct.pack(f"<{WEIGHT.numel()}f", *WEIGHT.flatten().tolist())
    weight = field(1, PIXELS) + field(1, 4) + field(2, 1) + field(8, "w") + field(9, raw)
    graph = field(1, node("Flatten", ["x"], "flat")) + field(1, node("MatMul", ["flat", "w"], "y")) + field(2, "linear")
    graph += field(5, weight) + field(11, value("x", batch, 3, 8, 8)) + field(12, value("y", batch, 4))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))


def test_an_onnx_file_without_onnxruntime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_file(tmp_path / "net.onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UapgenError, match=r"needs onnxruntime; pip install 'uapgen\[onnx\]'"):
        load_victim(f"file:{tmp_path / 'net.onnx'}", device="cpu")


@pytest.mark.parametrize("batch", [None, 1])
def test_an_onnx_file_answers_and_refuses_gradients(batch: int | None, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx_file(tmp_path / "net.onnx", batch)
    victim = load_victim(f"file:{tmp_path / 'net.onnx'}:mean=0.5,std=0.25", device="cpu")
    assert (victim.num_classes, victim.input_size, victim.name) == (4, (3, 8, 8), "file:net.onnx")
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(victim(x), ((x - 0.5) / 0.25).flatten(1) @ WEIGHT, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="has no gradient, so it can be evaluated but not attacked"):
        craft(victim, method="sgd-uap", source=Procedural((8, 8), "cpu"), budget=8)
    with pytest.raises(UsageError, match="shows only its logits"):
        victim.features(x)
    (tmp_path / "net.onnx").write_bytes(b"no program")
    with pytest.raises(UapgenError, match="onnxruntime cannot open"):
        load_victim(f"file:{tmp_path / 'net.onnx'}", device="cpu")


@pytest.mark.parametrize("suffix", [".pt2", ".torchscript"])
def test_programs_of_torch_answer_like_their_module_and_have_gradients(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*tiny_net(width=4)).eval()
    path, example = tmp_path / f"net{suffix}", torch.rand(2, 3, 8, 8)
    if suffix == ".pt2":
        dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.export.save(torch.export.export(net, (example,), dynamic_shapes=dynamic), path)
    else:
        torch.jit.save(torch.jit.trace(net, example), path)
    victim = load_victim(f"file:{path}:{OPTIONS}", device="cpu")
    plain = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
    reference = Victim(net, preprocessing=plain, device="cpu", precision="fp32")
    x = torch.rand(5, 3, 8, 8).requires_grad_()
    torch.testing.assert_close(victim(x), reference(x), rtol=1e-4, atol=1e-4)
    found, wanted = (torch.autograd.grad(v(x)[:, 0].sum(), x)[0] for v in (victim, reference))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    again = load_victim(f"file:{path}:{OPTIONS}", device="cpu")
    assert again.weights_sha256 == victim.weights_sha256 != reference.weights_sha256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("file:none.onnx", "it is not there"),
        ("file:net.pt2:pad_type=same", "a program takes preprocessing only"),
        ("file:net.pt2:random", "a program takes preprocessing only"),
        ("file:net.pt2", "torch cannot open net.pt2"),
        ("file:net.torchscript", "torch cannot open net.torchscript"),
    ],
)
def test_refused(spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("net.pt2", "net.torchscript"):
        (tmp_path / name).write_bytes(b"PK no program")
    with pytest.raises(UapgenError, match=message):
        load_victim(spec, device="cpu")
