"""The perturbation file: same bytes every time, no file accepted that is not what it says, and rounding."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from uapgen.errors import UapgenError, UsageError
from uapgen.perturbation import Perturbation
from uapgen.runtime import rng

EPS = 10 / 255


def noise(size: tuple[int, int] = (16, 20), eps: float = EPS, seed: int = 0) -> Tensor:
    return eps * (2 * torch.rand((3, *size), generator=rng(seed)) - 1)


def make(delta: Tensor | None = None, **options: Any) -> Perturbation:
    settings: dict[str, Any] = {"eps": EPS, "method": {"name": "noise"}, "data": {"class": "none", "sources": []}}
    return Perturbation.create(noise() if delta is None else delta, **{**settings, **options})


def file_sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forge(path: Path, delta: Tensor, /, **changes: Any) -> Path:
    """A file whose card is that of an honest perturbation, with `changes` merged into its sections."""
    card = json.loads(json.dumps(make().card))
    for key, value in changes.items():
        card[key] = {**card[key], **value} if isinstance(value, dict) else value
    save_file({"delta": delta}, path, metadata={"uapgen": json.dumps(card)})
    return path


def test_twenty_saves_of_two_equal_runs_are_one_file(tmp_path: Path) -> None:
    hashes = set()
    for number in range(20):
        make(seed=3, cost={"image_gradients": 5}).save(tmp_path / f"{number}.safetensors")
        hashes.add(file_sha(tmp_path / f"{number}.safetensors"))
    assert len(hashes) == 1


def test_load_gives_back_what_was_saved(tmp_path: Path) -> None:
    made = make(seed=7, victim={"name": "tiny"}, method={"name": "m", "params": {"lr": 0.1}})
    made.save(tmp_path / "a.safetensors")
    read = Perturbation.load(tmp_path / "a.safetensors")
    assert torch.equal(read.delta, made.delta)
    assert read.card == made.card
    assert (read.eps, read.norm, read.method, read.data_class, read.size) == (EPS, "linf", "m", "none", (16, 20))


def test_card_counts_the_budget() -> None:
    delta = torch.full((3, 4, 4), EPS)
    delta[:, :2] = 0
    budget = make(delta).card["budget"]
    assert budget["eps_255"] == 10
    assert budget["saturation"] == 0.5
    assert budget["l2"] == pytest.approx(EPS * 24**0.5, abs=1e-6)


def test_created_only_with_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert "created" not in make().card
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert make().card["created"] == "1970-01-02T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH='soon'"):
        make()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "HTML page"),
        (pickle.dumps({"delta": 1}), "pickle"),
        (b"\x93NUMPY\x01\x00v", "uapgen import"),
        (b"", "empty"),
        (b"no such format, but long enough", "no kind"),
    ],
)
def test_load_says_what_a_foreign_file_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "uap.safetensors"
    path.write_bytes(content)
    with pytest.raises(UapgenError, match=message):
        Perturbation.load(path)


def test_load_refuses_truncated_missing_and_bare_files(tmp_path: Path) -> None:
    path = tmp_path / "uap.safetensors"
    make().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UapgenError, match="truncated"):
        Perturbation.load(path)
    with pytest.raises(UapgenError, match="not there"):
        Perturbation.load(tmp_path / "none.safetensors")
    save_file({"delta": noise()}, path)
    with pytest.raises(UapgenError, match="no uapgen card"):
        Perturbation.load(path)


def test_load_notices_one_changed_bit(tmp_path: Path) -> None:
    path = tmp_path / "uap.safetensors"
    make().save(path)
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(UapgenError, match="sha256 mismatch"):
        Perturbation.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "uapgen.uap/2"}, "schema is 'uapgen.uap/2'"),
        ({"delta": {"shape": [3, 20, 16]}}, r"says shape \[3, 20, 16\]"),
        ({"budget": {"eps": 8 / 255}}, "above eps"),
        ({"budget": {"eps": "10"}}, r"card \[budget\]: eps = '10'; expected a number"),
        ({"budget": {"norm": "l7"}}, "norm 'l7'"),
        ({"budget": {"max_abs": 0.01}}, "max_abs=0.01"),
        ({"method": None}, "method is missing; expected a section"),
    ],
)
def test_load_refuses_a_card_that_lies(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = forge(tmp_path / "uap.safetensors", noise(), **changes)
    with pytest.raises(UapgenError, match=message):
        Perturbation.load(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    delta = noise()
    delta[0, 0, 0] = float("nan")
    with pytest.raises(UapgenError, match="not finite"):
        make(delta)
    with pytest.raises(UapgenError, match="not finite"):
        Perturbation.load(forge(tmp_path / "uap.safetensors", delta))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 10}, "did you mean 10/255"),
        ({"eps": float("nan")}, "positive"),
        ({"norm": "l1"}, "linf or l2"),
        ({"delta": torch.zeros(1, 4, 4)}, "(3,H,W)"),
        ({"data": {"class": "free"}}, "data class 'free'"),
        ({"method": {"name": "m", "params": {"x": torch.ones(1)}}}, "JSON"),
        ({"method": {"name": "m", "params": {"x": float("inf")}}}, "JSON"),
    ],
)
def test_create_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace(")", r"\)")):
        make(**options)


def test_budget_tolerates_rounding_and_no_more() -> None:
    make(torch.full((3, 4, 4), EPS + 5e-7))
    with pytest.raises(UapgenError, match="above eps"):
        make(torch.full((3, 4, 4), EPS + 3e-6))
    unit = torch.full((3, 4, 4), 1 / 48**0.5)
    make(2 * unit, norm="l2", eps=2.0)
    with pytest.raises(UapgenError, match="l2 norm"):
        make(2.001 * unit, norm="l2", eps=2.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_apply_keeps_dtype_and_clips(dtype: torch.dtype) -> None:
    made = make()
    x = torch.rand((4, 3, 16, 20), generator=rng(1)).to(dtype)
    out = made.apply(x)
    assert out.dtype == dtype
    assert out.min() >= 0
    assert out.max() <= 1
    exact = (x.double() + made.delta.double()).clamp(0, 1)
    assert (out.double() - exact).abs().max() <= torch.finfo(dtype).eps
    assert torch.equal(made.apply(x[0]), out[0])


def test_apply_rounds_8_bit_images() -> None:
    delta = torch.tensor([0.4, 0.6, -0.6]).view(3, 1, 1).expand(3, 8, 8) / 255
    x = torch.tensor([[100, 100, 100], [255, 255, 0]], dtype=torch.uint8).view(2, 3, 1, 1).expand(2, 3, 8, 8)
    out = make(delta).apply(x)
    assert out.dtype == torch.uint8
    assert out[:, :, 0, 0].tolist() == [[100, 101, 99], [255, 255, 0]]


def test_apply_is_differentiable_in_the_images() -> None:
    x = torch.full((1, 3, 16, 20), 0.5, requires_grad=True)
    make().apply(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))


def test_apply_names_the_remedy_for_another_size() -> None:
    with pytest.raises(UsageError, match=r"32x32.*16x20.*resize=True"):
        make().apply(torch.zeros(1, 3, 32, 32))
    assert make().apply(torch.zeros(1, 3, 32, 32), resize=True).shape == (1, 3, 32, 32)
    with pytest.raises(UsageError, match="RGB"):
        make().apply(torch.zeros(1, 1, 16, 20))
    with pytest.raises(UsageError, match="int64"):
        make().apply(torch.zeros(1, 3, 16, 20, dtype=torch.int64))


@pytest.mark.parametrize("size", [8, (33, 17), (64, 64)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_resized_stays_in_the_ball_and_says_where_it_came_from(size: int | tuple[int, int], norm: str) -> None:
    eps = EPS if norm == "linf" else float(noise().norm())
    made = make(norm=norm, eps=eps)
    other = made.resized(size)
    other.verify()
    assert other.size == ((size, size) if isinstance(size, int) else size)
    assert other.resized(40).card["resized_from"] == {"size": [16, 20], "sha256": made.sha256}
    assert made.resized((16, 20)) is made


def test_resizing_a_constant_changes_nothing_but_the_size() -> None:
    flat = make(torch.full((3, 16, 16), EPS)).resized(23)
    assert torch.allclose(flat.delta, torch.tensor(EPS))


def test_save_refuses_what_load_would_refuse(tmp_path: Path) -> None:
    made = make()
    with pytest.raises(UapgenError, match="sha256 mismatch"):
        Perturbation(made.delta * 0.9, made.card).save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
