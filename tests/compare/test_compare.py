"""uapgen.compare at work: a comparison holds every number, goes on where it was interrupted, and takes no strangers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.conftest import SEED, TINY, gratings, tiny_net
from tests.test_runfolder import another_process
from uapgen.attacks import Crafting, Method
from uapgen.attacks.core.method import _METHODS
from uapgen.compare import cells as work
from uapgen.compare import compare, figures
from uapgen.compare import crafter as crafts
from uapgen.errors import UapgenError, UsageError
from uapgen.perturbation import Perturbation
from uapgen.schema import to_json
from uapgen.victims import Preprocessing, Victim

# Runs. Methods on Gaussian images, which cost nothing; the second victim has another input size.

QUICK = "noise,cosine-uap@gaussian,sga@gaussian+tile=2"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A working folder with 40 pictures in data/; only tests of figures take the seconds to draw any."""
    if "figures" not in request.node.name:
        monkeypatch.setattr(figures, "draw_all", lambda *args: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UAPGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for i, picture in enumerate(gratings(40, seed=5)[0]):
        levels = (picture * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        Image.fromarray(levels).save(tmp_path / "data" / f"{i:02}.png")
    return tmp_path


@pytest.fixture
def other_victim() -> Victim:
    torch.manual_seed(4 + SEED)
    net = tiny_net(width=4).train()
    with torch.no_grad():
        net(torch.rand(64, 3, 24, 24))
    preprocessing = Preprocessing(input_size=(3, 24, 24), mean=TINY.mean, std=TINY.std, crop_pct=1.0)
    return Victim(net, name="other", preprocessing=preprocessing, device="cpu")


Counts = dict[str, int]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Calls of craft, and perturbations given to evaluate; `stop_craft`, `stop_evaluate` interrupt the n-th call."""
    found = {"craft": 0, "evaluate": 0, "stop_craft": 0, "stop_evaluate": 0}

    def counted(name: str, function: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found[name] += size(*args)
            found[f"stop_{name}"] -= 1
            if found[f"stop_{name}"] == 0:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(crafts, "craft", counted("craft", crafts.craft, lambda *args: 1))
    monkeypatch.setattr(work, "evaluate", counted("evaluate", work.evaluate, lambda uaps, *args: len(uaps)))
    return found


def quick(victim: Victim, **options: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {"eps": 16 / 255, "budget": 160, "seeds": [0, 1], "curve": 0, "workers": 0, **options}
    return to_json(compare({"tiny": victim}, plan.pop("methods", QUICK), "data", "run", **plan))


def test_a_comparison_holds_every_number(place: Path, tiny_victim: Victim, other_victim: Victim) -> None:
    talk: list[str] = []
    result = quick(tiny_victim, transfer_victims={"small": other_victim}, seeds_for=["sga"], curve=20, say=talk.append)
    assert result == json.loads(Path("run/results.json").read_text())
    assert result["complete"] is True
    assert len(result["cells"]) == 8
    rows = {row["method"]: row for row in result["rows"]}
    assert [len(rows[label]["seeds"]) for label in ("noise", "cosine-uap@gaussian", "sga@gaussian+tile=2")] == [1, 1, 2]
    assert rows["noise"]["image_gradients"] == 0
    assert rows["cosine-uap@gaussian"]["image_gradients"] == 160
    assert all(cell["seconds"] > 0 and cell["n"] == 40 for cell in result["cells"])
    assert {cell["victim"]: cell["resized"] for cell in result["cells"]} == {"tiny": False, "small": True}
    by_hand = [c["fooling_rate"]["rate"] for c in result["cells"] if c["method"] == "noise" and c["victim"] == "small"]
    assert rows["noise"]["transfer"]["mean"] == by_hand[0]
    curves = {curve["method"]: curve["image_gradients"] for curve in result["curves"]}
    assert curves == {"noise": [0], "cosine-uap@gaussian": [32, 64, 96, 160], "sga@gaussian+tile=2": [40, 80, 160]}
    table = Path("run/table.md").read_text()
    assert "160 image-gradients, 40 images of data" in table
    assert "| `noise`" in table and "± " in table
    assert "craft 4/4 sga@gaussian+tile=2, seed 1, tiny: 160 image-gradients" in "\n".join(talk)
    assert "cells 8/8 small" in "\n".join(talk)
    tiled = Perturbation.load("run/uaps/tiny__sga@gaussian+tile=2__0.safetensors").delta
    assert torch.equal(tiled[:, :16, :16], tiled[:, 16:, 16:])


def test_figures_show_something(place: Path, tiny_victim: Victim, other_victim: Victim) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(tiny_victim, transfer_victims={"small": other_victim}, seeds=[0], curve=10, methods="noise,sga@gaussian")
    for name in ("curves", "transfer", "patterns", "spectrum"):
        pixels = np.asarray(Image.open(f"run/{name}.png").convert("RGB"))
        assert min(pixels.shape[:2]) > 200, name
        assert pixels.std() > 10, name
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, name
    assert not list(Path("run").glob(".*"))  # no temporary file is left


@pytest.mark.parametrize(
    ("stop", "at"), [("stop_craft", 1), ("stop_craft", 3), ("stop_evaluate", 1), ("stop_evaluate", 2)]
)
def test_an_interrupted_run_repeats_nothing_that_is_finished(
    stop: str, at: int, place: Path, tiny_victim: Victim, other_victim: Victim, counts: Counts, monkeypatch: Any
) -> None:
    monkeypatch.setattr(work, "CHUNK", 2)
    options: dict[str, Any] = {"transfer_victims": {"small": other_victim}, "seeds": [0]}
    counts[stop] = at
    with pytest.raises(KeyboardInterrupt):
        quick(tiny_victim, **options)
    crafted, lines = len(list(Path("run/uaps").glob("*.safetensors"))), len(_cells())
    counts["craft"] = counts["evaluate"] = 0
    result = quick(tiny_victim, **options)
    assert result["complete"] is True
    assert counts["craft"] == 3 - crafted
    assert counts["evaluate"] == 6 - lines
    assert len(_cells()) == 6
    quick(tiny_victim, **options)
    assert (counts["craft"], counts["evaluate"]) == (3 - crafted, 6 - lines)


def _cells() -> list[bytes]:
    file = Path("run/cells.jsonl")
    return file.read_bytes().splitlines() if file.exists() else []


def test_a_kill_in_the_middle_of_a_line_costs_that_cell(place: Path, tiny_victim: Victim, counts: Counts) -> None:
    before = quick(tiny_victim, seeds=[0])
    file = Path("run/cells.jsonl")
    file.write_bytes(file.read_bytes()[:-40])
    counts["craft"] = counts["evaluate"] = 0
    after = quick(tiny_victim, seeds=[0])
    assert (counts["craft"], counts["evaluate"]) == (0, 1)
    assert [row["rates"] for row in after["rows"]] == [row["rates"] for row in before["rows"]]
    assert [row["floor"] for row in after["rows"]] == [row["floor"] for row in before["rows"]]


def test_a_craft_goes_on_inside(place: Path, tiny_victim: Victim) -> None:
    options: dict[str, Any] = {"methods": "cosine-uap@gaussian", "seeds": [0], "budget": 1600}

    def stop(stage: str, done: int, total: int, figures: dict) -> None:
        assert stage == "cosine-uap@gaussian, seed 0, tiny, cosine"
        if done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(tiny_victim, callback=stop, **options)
    folder = Path("run/craft/tiny__cosine-uap@gaussian__0")
    spent = json.loads((folder / "clock.json").read_text())["seconds"]
    steps: list[int] = []
    cut = quick(tiny_victim, callback=lambda stage, done, *rest: steps.append(done), **options)
    assert 480 < steps[0] <= 1000  # from the last saved state, not from zero
    assert cut["rows"][0]["seconds"] > spent
    Path("run").rename("cut")
    whole = quick(tiny_victim, **options)
    assert whole["cells"][0]["sha256"] == cut["cells"][0]["sha256"]


def test_methods_seeds_and_victims_can_be_added(
    place: Path, tiny_victim: Victim, other_victim: Victim, counts: Counts
) -> None:
    quick(tiny_victim, methods="noise", seeds=[0])
    assert (counts["craft"], counts["evaluate"]) == (1, 1)
    quick(tiny_victim, methods="noise,sga@gaussian", seeds=[0])
    assert (counts["craft"], counts["evaluate"]) == (2, 2)
    quick(tiny_victim, methods="noise", seeds=[0, 1])
    assert (counts["craft"], counts["evaluate"]) == (3, 3)
    last = quick(tiny_victim, methods="noise,sga@gaussian", seeds=[0], transfer_victims={"small": other_victim})
    assert (counts["craft"], counts["evaluate"]) == (3, 5)
    assert {row["method"]: row["seeds"] for row in last["rows"]} == {"noise": [0, 1], "sga@gaussian": [0]}


def test_what_does_not_belong_is_refused(place: Path, tiny_victim: Victim, other_victim: Victim) -> None:
    quick(tiny_victim, methods="noise", seeds=[0])
    held = Path("run/cells.jsonl").read_bytes()
    for options, what in (
        ({"eps": 8 / 255}, "eps = "),
        ({"budget": 65}, "budget = 160 there, 65 now"),
        ({"norm": "l2"}, "norm = 'linf' there, 'l2' now"),
        ({"limit": 39}, "data = data (40 images"),
    ):
        with pytest.raises(UsageError, match="another comparison") as caught:
            quick(tiny_victim, methods="noise,sga@gaussian", seeds=[0], **options)
        assert what in str(caught.value)
    with pytest.raises(UsageError, match=r"name of tiny = .tiny. there, .other. now"):
        quick(other_victim, methods="noise", seeds=[0])
    Image.new("RGB", (32, 32)).save("data/00.png")
    with pytest.raises(UsageError, match="data = data"):
        quick(tiny_victim, methods="noise", seeds=[0])
    assert Path("run/cells.jsonl").read_bytes() == held
    Path("elsewhere").mkdir()
    Path("elsewhere/options.json").write_text('{"method": "sga"}')
    with pytest.raises(UsageError, match="something else than a comparison"):
        compare({"tiny": tiny_victim}, "noise", "data", "elsewhere")


def test_a_comparison_belongs_to_one_process_at_a_time(place: Path, tiny_victim: Victim) -> None:
    (place / "run").mkdir()
    with another_process(place / "run") as other, pytest.raises(UapgenError, match=f"in use by process {other.pid}"):
        quick(tiny_victim)


def test_training_data_may_come_later_but_not_change(place: Path, tiny_victim: Victim) -> None:
    Path("train").mkdir()
    for i, picture in enumerate(gratings(12, seed=6)[0]):
        Image.fromarray((picture * 255).byte().movedim(0, -1).numpy()).save(f"train/{i}.png")
    quick(tiny_victim, methods="noise", seeds=[0])
    result = quick(tiny_victim, methods="noise,sga", seeds=[0], train_data="train")
    assert {row["method"]: row["data_class"] for row in result["rows"]} == {"noise": "none", "sga": "driven"}
    assert quick(tiny_victim, methods="noise", seeds=[0])["train_data"]["images"] == 12
    Path("train/0.png").unlink()
    with pytest.raises(UsageError, match=r"train-data = train \(12 images"):
        quick(tiny_victim, methods="noise,sga", seeds=[0], train_data="train")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UapgenError("no layers\nto speak of"), "no layers to speak of"),
        (ZeroDivisionError("float division by zero"), "ZeroDivisionError: float division by zero"),
    ],
)
def test_a_method_that_fails_does_not_stop_the_others(
    error: Exception, told: str, place: Path, tiny_victim: Victim, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    craft = crafts.craft

    def broken(victim: Victim, **options: Any) -> Perturbation:
        if options["method"] == "cosine-uap":
            raise error
        return craft(victim, **options)

    with monkeypatch.context() as patch:
        patch.setattr(crafts, "craft", broken)
        result = quick(tiny_victim, seeds=[0], curve=5)
    assert result["complete"] is False
    assert [entry["error"] for entry in result["failed"]] == [told]
    assert {row["method"] for row in result["rows"]} == {"noise", "sga@gaussian+tile=2"}
    assert f"failed: cosine-uap@gaussian, seed 0, tiny: {told}" in Path("run/table.md").read_text()
    (line,) = [held for held in map(json.loads, _cells()) if "error" in held]
    assert (line["part"], line["error"], line["type"]) == ("craft", told, type(error).__name__)
    later = quick(tiny_victim, methods="noise", seeds=[0])  # complete, and still says what the folder lacks
    assert (later["complete"], len(later["failed"])) == (True, 1)
    last = quick(tiny_victim, seeds=[0])
    assert (last["complete"], last["failed"]) == (True, [])


def test_a_victim_that_cannot_be_measured_does_not_stop_the_others(
    place: Path, tiny_victim: Victim, other_victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = work.evaluate

    def broken(uaps: Any, victim: Victim, *args: Any, **options: Any) -> Any:
        if victim.name == "other":
            raise MemoryError
        return evaluate(uaps, victim, *args, **options)

    options: dict[str, Any] = {"transfer_victims": {"small": other_victim}, "methods": "noise", "seeds": [0]}
    with monkeypatch.context() as patch:
        patch.setattr(work, "evaluate", broken)
        result = quick(tiny_victim, **options)
    assert [entry["error"] for entry in result["failed"]] == ["MemoryError"]
    assert [cell["victim"] for cell in result["cells"]] == ["tiny"]
    again = quick(tiny_victim, **options)
    assert (again["complete"], again["failed"], len(again["cells"])) == (True, [], 2)


def test_a_method_that_breaks_or_finds_nothing_to_read_is_a_row_that_says_why(
    place: Path, tiny_victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(run: Crafting, *, batch: int = 1) -> torch.Tensor:
        return torch.zeros(1 // (batch - batch))

    monkeypatch.setitem(_METHODS, "breaks", Method("breaks", breaks, "none", None, "none"))
    result = quick(tiny_victim, methods="noise,breaks+batch=2", seeds=[0])
    assert [row["method"] for row in result["rows"]] == ["noise"]
    (failed,) = result["failed"]
    assert failed["title"] == "breaks+batch=2, seed 0, tiny"
    assert "breaks failed with ZeroDivisionError" in failed["error"] and "(batch=2)" in failed["error"]
    assert failed["error"] in Path("run/table.md").read_text()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    plain = {"plain": Victim(flat, preprocessing=TINY, device="cpu")}
    other = compare(plain, "fff,noise", "data", "other", eps=16 / 255, budget=20, curve=0, workers=0)
    assert [row.method for row in other.rows] == ["noise"]
    assert "no layers before its classifier" in other.failed[0].error


def test_imports_are_rows_of_unknown_class(place: Path, tiny_victim: Victim, other_victim: Victim) -> None:
    signs = np.sign(np.random.default_rng(0).normal(size=(32, 32, 3)))
    np.save("theirs.npy", 16 * signs)
    imports = ["theirs.npy:0..255:HWC:BGR"]
    result = quick(tiny_victim, methods="noise", seeds=[0], imports=imports, transfer_victims={"small": other_victim})
    row = result["rows"][1]
    assert (row["method"], row["data_class"], row["crafted_on"], row["seconds"]) == (
        "theirs.npy",
        "unknown",
        None,
        None,
    )
    assert [line["method"] for line in result["transfer"]["rows"]] == ["noise", "theirs.npy"]
    kept = Perturbation.load("run/uaps/import__theirs.npy.safetensors").delta
    assert torch.equal(kept[0].sign(), torch.from_numpy(signs[:, :, 2]).float())
    with pytest.raises(UapgenError, match="above eps"):
        quick(tiny_victim, methods="noise", seeds=[0], imports=["theirs.npy:0..1:HWC"])
    own = "run/uaps/tiny__noise__0.safetensors"
    with pytest.raises(UsageError, match="made for linf 16/255, and this comparison is at linf 8/255"):
        quick(tiny_victim, methods="noise", seeds=[0], eps=8 / 255, imports=[own])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "noise+target=3"}, "no targeted form"),
        ({"methods": "sga@gaussian+target=10"}, "target 10 is not a class"),
        ({"methods": "sga@gaussian+tile=5"}, "does not divide"),
        ({"methods": "sga"}, "--train-data DIR"),
        ({"seeds": []}, "needs a seed"),
        ({"transfer_victims": {"tiny": None}}, "under a name of its own"),
        ({"seeds_for": ["gap"]}, "no such method in this comparison"),
        ({"budget": "quik"}, "expected quick"),
        ({"imports": ["none.npy:0..1:CHW"]}, "none.npy is not there"),
        ({"train_data": "nowhere", "methods": "noise,sga"}, "'nowhere' is not there"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], message: str, place: Path, tiny_victim: Victim) -> None:
    with pytest.raises(UapgenError) as caught:
        quick(tiny_victim, **options)
    assert message in str(caught.value)
    assert not Path("run").exists()
