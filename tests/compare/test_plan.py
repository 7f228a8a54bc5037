"""uapgen.compare: specs and their names, files that are cut short, and the arithmetic of rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uapgen.attacks import methods
from uapgen.compare import parse_import, parse_method, parse_methods, parse_seeds, rows_of, transfer_matrix
from uapgen.compare.plan import list_tasks, select
from uapgen.compare.store import Clock, file_name
from uapgen.errors import UapgenError, UsageError
from uapgen.evaluation.comparison import CellEntry
from uapgen.evaluation.intervals import Rate
from uapgen.experiments.cells import Lines
from uapgen.perturbation.card import OPEN
from uapgen.perturbation.picture import low_share, radial_spectrum
from uapgen.schema import make


def test_a_spec_has_one_label_however_it_is_written() -> None:
    first = parse_method("sga@jigsaw+step=0.2+min-steps=3+tile=2")
    assert first == parse_method("sga@jigsaw+tile=2+min_steps=3+step=0.2")
    assert first.label == "sga@jigsaw+min_steps=3+step=0.2+tile=2"
    assert first.arguments(5) == {"step": 0.2, "min_steps": 3, "tile": 2}
    assert parse_method(first.label) == first
    assert [spec.label for spec in parse_methods("noise, sga@jigsaw,noise")] == ["noise", "sga@jigsaw"]


def test_the_gan_has_the_run_s_seed_unless_the_spec_says_otherwise() -> None:
    assert parse_method("cbgan").arguments(3) == {"gan_seed": 3}
    assert parse_method("cbgan+gan_seed=7").arguments(3) == {"gan_seed": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sgaa", "did you mean 'sga'"),
        ("", "no method was given"),
        ("sga@cloud", "expected one of"),
        ("sga@", "expected one of"),
        ("sga+step", "'+step' is not +KEY=VALUE"),
        ("noise+step=1", "no parameter 'step'"),
        ("sga@jigsaw+step=fast", "sga: step=fast is not a finite number"),
        ("sga@jigsaw+step=", "has no value"),
        ("sga@jigsaw+target=cat", "not a whole number"),
        ("sga@jigsaw+step=1+step=2", "twice"),
        ("noise,sga,cosine-uap+lr=0.1", "sga, cosine-uap+lr=0.1: learning from images, but there are none"),
        ("sga", "sga@procedural"),
        ("gd-uap@train+prior=data", "gd-uap@train+prior=data: learning from images"),
    ],
)
def test_specs_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_methods(text)
    assert message in str(caught.value)


def test_all_is_every_method_in_a_form_that_runs() -> None:
    free, driven = parse_methods("all"), parse_methods("all", train_data=True)
    assert [spec.name for spec in free] == list(methods()) == [spec.name for spec in driven]
    assert {spec.source for spec in driven} == {None}
    assert {spec.name for spec in free if spec.source} == {m.name for m in methods().values() if m.images == "driven"}
    assert [spec.name for spec in parse_methods("all", norm="l2")] == [
        name for name, method in methods().items() if "l2" in method.norms
    ]
    with pytest.raises(UsageError, match="cbgan is not defined for norm l2"):
        parse_methods("cbgan", norm="l2")


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0..2", [0, 1, 2]), ("3,1,3", [3, 1]), ("0,5..6", [0, 5, 6]), ("2..2", [2])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "2..0", "0..", "..3", "-1", "1,,2", "0.5"])
def test_seeds_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected 0,1,2 or 0\.\.2"):
        parse_seeds(text)


def test_extra_seeds_for_some() -> None:
    specs = parse_methods("noise,sga@jigsaw,sga@procedural")
    assert select(specs, ["sga"]) == specs[1:]
    assert select(specs, ["sga@jigsaw"]) == [specs[1]]
    with pytest.raises(UsageError, match="expected some of noise"):
        select(specs, ["gap"])
    tasks = list_tasks(["a", "b"], specs[:2], [4, 5], [specs[0]], [parse_import("x.png")])
    assert [(task.spec.label, task.victim, task.seed) for task in tasks] == [
        ("x.png", None, None),
        ("noise", "a", 4),
        ("sga@jigsaw", "a", 4),
        ("noise", "b", 4),
        ("sga@jigsaw", "b", 4),
        ("noise", "a", 5),
        ("noise", "b", 5),
    ]
    with pytest.raises(UsageError, match=r"called x\.png"):
        list_tasks(["a"], specs, [0], [], [parse_import("x.png"), parse_import("other/x.png")])


def test_file_names_are_as_different_as_what_they_name() -> None:
    texts = ["a/b", "a~b", "a%7Eb", "a:b", "a-b", "a b", "a__b", "é", "x" * 300, "x" * 301]
    names = [file_name("victim", text, 0) for text in texts]
    assert len(set(names)) == len(texts)
    assert all("/" not in name and len(name) < 200 for name in names)
    assert file_name("embedded/efficientnet_lite0", "sga@jigsaw", 0) == "embedded~efficientnet_lite0__sga@jigsaw__0"


def test_imports_say_how_they_are_stored() -> None:
    spec = parse_import("a:b/gd.npy:0..255:HWC:BGR")
    assert (spec.file, spec.unit, spec.layout, spec.channels) == ("a:b/gd.npy", "0..255", "HWC", "BGR")
    assert parse_import("gd.npy:0..1:CHW").channels == "RGB"
    assert parse_import("mine.safetensors").file == "mine.safetensors"
    with pytest.raises(UsageError, match="FILE:UNIT:LAYOUT"):
        parse_import("gd.npy")
    with pytest.raises(UsageError, match="FILE:UNIT:LAYOUT"):
        parse_import("gd.npy:HWC:0..1")


def test_lines_survive_a_kill_in_the_middle_of_one(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "new" / "cells.jsonl")
    assert lines.read() == []
    lines.append({"a": 1})
    lines.append({"a": 2})
    whole = lines.path.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 8, -1):
        lines.path.write_bytes(whole[:cut])
        assert lines.read() == [{"a": 1}]
        assert lines.path.read_bytes() == b'{"a": 1}\n'
    lines.path.write_bytes(b'{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(UapgenError, match="line 2 is not JSON"):
        lines.read()


def test_a_clock_adds_up_over_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = Clock(tmp_path / "clock.json", every=5)
    now = 104.0
    clock.tick()
    assert Clock.read(clock.file) is None  # not yet time to write
    now = 106.0
    clock.tick()
    now = 109.0  # killed here: three seconds are lost
    now = 1000.0
    again = Clock(clock.file)
    now = 1010.0
    again.tick(now=True)
    assert Clock.read(clock.file) == 16.0


def cell(method: str, crafted_on: str | None, victim: str, seed: int | None, changed: int, **more: Any) -> CellEntry:
    table = {
        "uap": f"{crafted_on}__{method}__{seed}",
        "sha256": "aa",
        "method": method,
        "crafted_on": crafted_on,
        "victim": victim,
        "seed": seed,
        "n": 100,
        "white_box": victim == crafted_on,
        "resized": False,
        "fooling_rate": Rate(changed, 100).to_json(),
        "floor": Rate(10, 100).to_json(),
        "data_class": "none",
        "image_gradients": 400,
        "seconds": 1.0 + (seed or 0),
        "below_28": 0.5,
        **more,
    }
    return make(CellEntry, table, "cell", rules=OPEN)


CELLS = [
    cell("m", "A", "A", 0, 40),
    cell("m", "A", "A", 1, 60),
    cell("m", "A", "A", 2, 50),
    cell("m", "A", "B", 0, 10),
    cell("m", "A", "B", 1, 30),
    cell("m", "A", "C", 0, 5),
    cell("m", "B", "B", 0, 70),
    cell("m", "B", "A", 0, 20),
    cell("d", "A", "A", 0, 99, data_class="driven"),
    cell("best", "A", "A", 0, 80),
    cell("f.npy", None, "A", None, 33, data_class="unknown", seconds=None, image_gradients=None),
    cell("f.npy", None, "B", None, 44, data_class="unknown", seconds=None, image_gradients=None),
]


def test_rows_against_numbers_by_hand() -> None:
    rows = rows_of(CELLS, "A")
    assert [row.method for row in rows] == ["best", "m", "d", "f.npy"]  # by data class, then by falling rate
    m = rows[1]
    assert m.rates == (0.4, 0.6, 0.5)
    assert m.seeds == (0, 1, 2)
    assert m.fooling_rate.mean == pytest.approx(0.5)
    assert m.fooling_rate.std == pytest.approx(0.1)  # sqrt((0.01 + 0.01 + 0) / 2)
    assert m.fooling_rate.ci95 == pytest.approx((0.40383, 0.59617), abs=1e-5)  # Wilson at 50 of 100
    assert m.transfer.mean == pytest.approx((0.2 + 0.05) / 2)
    assert m.transfer.victims == {"B": pytest.approx(0.2), "C": 0.05}
    assert m.seconds == pytest.approx(2.0)
    assert rows[0].fooling_rate.std is None
    assert rows[0].transfer.mean is None
    assert (rows[3].crafted_on, rows[3].transfer.mean, rows[3].seconds) == (None, 0.44, None)


def test_transfer_has_the_crafted_in_rows_and_the_measured_in_columns() -> None:
    rows = [row for name in "AB" for row in rows_of(CELLS, name) if row.method == "m"]
    matrix = transfer_matrix(CELLS, rows, ["A", "B", "C"])
    assert matrix.victims == ("A", "B", "C")
    assert [(row.crafted_on, row.rates) for row in matrix.rows] == [
        ("A", (pytest.approx(0.5), pytest.approx(0.2), 0.05)),
        ("B", (0.2, 0.7, None)),
    ]


@pytest.mark.parametrize(("cycles", "low"), [(5, 1.0), (27, 1.0), (29, 0.0), (60, 0.0)])
def test_a_grating_has_its_power_at_its_frequency(cycles: int, low: float) -> None:
    wave = torch.cos(2 * math.pi * cycles * torch.arange(224) / 224)
    for delta in (wave.expand(3, 224, 224), wave.view(-1, 1).expand(3, 224, 224)):
        radii, shares = radial_spectrum(delta)
        assert radii[max(range(len(shares)), key=shares.__getitem__)] == cycles
        assert low_share(delta) == pytest.approx(low, abs=1e-9)


def test_white_noise_is_flat() -> None:
    noise = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))
    _, shares = radial_spectrum(noise)
    assert np.array(shares[20:]) * 224 * 224 == pytest.approx(np.ones(len(shares[20:])), abs=0.15)
    assert low_share(noise) == pytest.approx(math.pi * 28**2 / 224**2, abs=0.003)
