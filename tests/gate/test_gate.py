"""The gate: verdicts against hand-made counts, what is refused, and the files that other programs read."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT
from uapgen.errors import UapgenError, UsageError
from uapgen.evaluation import Rate
from uapgen.evaluation.intervals import Z95, wilson
from uapgen.evaluation.stored import load_results, read_results
from uapgen.gate import FAILED, INCONCLUSIVE, PASSED, change, check_limit, gate
from uapgen.gate.junit import to_junit, to_markdown
from uapgen.gate.policy import Check, Policy, load_policy

POLICY = """
[[check]]
metric = "fooling_rate"
victim = "tiny*"
max = 0.4
min_images = 100
"""


CARD = {
    "schema": "uapgen.uap/1",
    "delta": {"sha256": "aa", "shape": [3, 4, 4]},
    "budget": {"norm": "linf", "eps": 10 / 255},
    "method": {"name": "psp-uap"},
    "data": {"class": "none"},
}
ABOUT = {
    "name": "tiny",
    "weights_sha256": "w",
    "num_classes": 10,
    "input_size": [3, 4, 4],
    "mean": [0.5],
    "std": [0.5],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


def results(fooled: int = 30, n: int = 100, **changes: Any) -> dict[str, Any]:
    """A document of `uapgen evaluate` with one row, `fooled` of `n`; `changes` go into the row."""
    row = {
        "uap": 0,
        "method": "psp-uap",
        "norm": "linf",
        "eps": 10 / 255,
        "eps_255": 10.0,
        "victim": "tiny",
        "victim_weights_sha256": "w",
        "white_box": True,
        "n": n,
        "fooling_rate": Rate(fooled, n).to_json(),
        "clean_accuracy": Rate(n // 2, n).to_json(),
        "adversarial_accuracy": None,
        "dominant_classes": [],
        **changes,
    }
    data = {"path": "data", "images": n, "labelled": n, "list_sha256": "images", "corrupt": []}
    measured = {"transform": "crop", "n": n, "data": data, "environment": {}, "seconds": 1.0, "warnings": []}
    return copy.deepcopy(
        {
            "schema": "uapgen.evaluation/1",
            "uapgen": "0.1.0",
            "command": "uapgen evaluate u.safetensors",
            "complete": True,
            "data": "data",
            "quantized": True,
            "seed": 0,
            "uaps": [{"file": "u.safetensors", "sha256": "aa", "card": {**CARD, "seed": 3}}],
            "victims": [{**ABOUT, **measured}],
            "rows": [row],
        }
    )


def write(path: Path, document: object) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def states(document: dict[str, Any], **check: Any) -> list[str]:
    policy = Policy((Check(check.pop("metric", "fooling_rate"), **check),))
    return [verdict.state for verdict in gate(read_results(document), policy).verdicts]


@pytest.mark.parametrize(("fooled", "state"), [(30, PASSED), (31, INCONCLUSIVE), (49, INCONCLUSIVE), (51, FAILED)])
def test_the_wilson_interval_decides(fooled: int, state: str) -> None:
    """Wilson 95% of 30, 31, 49 and 51 of 100: up to 39.6, 40.6, from 39.4 and from 41.3 per cent."""
    assert states(results(fooled), max=0.4) == [state]
    low, high = wilson(fooled, 100)
    assert (high <= 0.4, low > 0.4) == (state == PASSED, state == FAILED)


def test_rows_behind_a_defence_are_demanded_by_its_name() -> None:
    document = results(fooled=30)
    defended = {**document["rows"][0], "fooling_rate": Rate(80, 100).to_json()}
    document["defences"] = [{"defence": "none", **document["rows"][0]}, {"defence": "jpeg75", **defended}]
    assert states(document, max=0.4) == [PASSED, FAILED]
    assert states(document, max=0.4, defence="none") == [PASSED]
    assert states(document, max=0.4, defence="jpeg*") == [FAILED]


def test_a_lower_limit_is_met_by_the_lower_end() -> None:
    assert states(results(), metric="clean_accuracy", min=0.40) == [PASSED]  # 50 of 100: [40.4, 59.6]
    assert states(results(), metric="clean_accuracy", min=0.41) == [INCONCLUSIVE]
    assert states(results(), metric="clean_accuracy", min=0.60) == [FAILED]


def test_more_confidence_asks_for_more() -> None:
    assert states(results(30), max=0.4, confidence=0.95) == [PASSED]
    assert states(results(30), max=0.4, confidence=0.99) == [INCONCLUSIVE]


def test_too_few_images_do_not_pass_but_may_fail() -> None:
    assert states(results(0, 50), max=0.4, min_images=100) == [INCONCLUSIVE]
    assert states(results(50, 50), max=0.4, min_images=100) == [FAILED]


def test_what_was_not_measured_is_inconclusive() -> None:
    assert states(results(), metric="adversarial_accuracy", min=0.1) == [INCONCLUSIVE]
    assert states(results(0, 0), max=0.4) == [INCONCLUSIVE]


def test_an_incomplete_run_never_passes() -> None:
    document = {**results(1), "complete": False}
    assert states(document, max=0.4) == [INCONCLUSIVE]
    assert states({**results(90), "complete": False}, max=0.4) == [FAILED]


def test_exit_codes_of_a_gate() -> None:
    def code(fooled: int, mode: str = "separate") -> int:
        return gate(read_results(results(fooled)), Policy((Check("fooling_rate", max=0.4),), mode)).exit_code

    assert [code(10), code(90), code(40), code(40, "fail"), code(10, "fail")] == [0, 1, 4, 1, 0]
    both = read_results({**results(40), "rows": results(40)["rows"] + results(90)["rows"]})
    assert check_limit(both, 0.4).exit_code == 1


def test_a_check_that_selects_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no row .* of victim 'tinny'; did you mean 'tiny'"):
        states(results(), victim="tinny", max=0.4)
    with pytest.raises(UsageError, match="no row"):
        states(results(), eps_255=8.0, max=0.4)
    assert states(results(), victim="t*", method="psp-*", eps_255=10.0, max=0.4) == [PASSED]


def test_change_on_the_same_images_is_the_difference() -> None:
    assert change(Rate(30, 100), Rate(32, 100), Z95, same_images=True) == pytest.approx((0.02, 0.02))


def test_change_on_other_images_is_newcombes_interval() -> None:
    """Newcombe (1998), table II, method 10: 56/70 - 48/80 is [0.0524, 0.3339]; 9/10 - 3/10 is [0.1705, 0.8090]."""
    assert change(Rate(48, 80), Rate(56, 70), Z95, same_images=False) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert change(Rate(3, 10), Rate(9, 10), Z95, same_images=False) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_baseline(tmp_path: Path) -> None:
    base = write(tmp_path / "base.json", results(30))
    assert states(results(32), baseline=base, max_increase=0.02) == [PASSED]  # 0.32 - 0.3 is 0.02000...018
    assert states(results(33), baseline=base, max_increase=0.02) == [FAILED]
    assert states(results(10), baseline=base, max_increase=0.0) == [PASSED]
    assert states(results(27), baseline=base, max_decrease=0.02) == [FAILED]
    other = results(32)
    other["victims"][0]["data"]["list_sha256"] = "other images"
    assert states(other, baseline=base, max_increase=0.02) == [INCONCLUSIVE]
    assert states(results(method="else"), baseline=base, max_increase=0.5) == [INCONCLUSIVE]


def test_a_baseline_of_several_seeds_is_matched_by_pattern_then_by_place(tmp_path: Path) -> None:
    def two(first: int, second: int, *shas: str) -> dict[str, Any]:
        document = results()
        document["uaps"] = [{"file": sha, "sha256": sha, "card": {**CARD, "seed": i}} for i, sha in enumerate(shas)]
        document["rows"] = [{**results(n)["rows"][0], "uap": i} for i, n in enumerate((first, second))]
        return document

    base = write(tmp_path / "base.json", two(10, 60, "aa", "bb"))
    assert states(two(60, 10, "bb", "aa"), baseline=base, max_increase=0.0) == [PASSED, PASSED]
    assert states(two(60, 10, "cc", "dd"), baseline=base, max_increase=0.0) == [FAILED, PASSED]


def test_a_policy_file(tmp_path: Path) -> None:
    text = f'on_inconclusive = "fail"\n{POLICY}[[check]]\nmetric = "clean_accuracy"\nbaseline = "b.json"\n'
    policy = load_policy(write(tmp_path / "p.toml", text + "max_decrease = 0.01\n"))
    assert policy.on_inconclusive == "fail"
    assert policy.checks[0] == Check("fooling_rate", victim="tiny*", max=0.4, min_images=100)
    assert policy.checks[1].baseline == tmp_path / "b.json"
    assert [check.bound for check in policy.checks] == ["fooling_rate <= 40%", "fall of clean_accuracy <= 1%"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[check]", "cannot be read"),
        ("", "at least one"),
        ("check = 3", "check = 3; expected a list of sections"),
        ('[[check]]\nmetric = "fooling_rat"\nmax = 0.4', "did you mean 'fooling_rate'"),
        ("[[check]]\nmax = 0.4", "metric is missing; expected one of fooling_rate"),
        ('[[check]]\nmetric = "fooling_rate"', "no limit"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = 0.4\nmin = 0.1', "max and min"),
        ('[[check]]\nmetric = "fooling_rate"\nmax_increase = 0.4', "expected max, min, or a baseline"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = 40', "did you mean 0.4"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = nan', "a share in 0..1"),
        (f'[[check]]\nmetric = "fooling_rate"\nmax = 1{"0" * 400}', "a share in 0..1"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = "0.4"', "a share in 0..1"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = true', "a share in 0..1"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = 0.4\nconfidence = 1.0', r"\[0.5, 1\)"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = 0.4\nmin_image = 3', "did you mean 'min_images'"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = 0.4\nmin_images = 0', "expected a number of images from 1 on"),
        ('[[check]]\nmetric = "fooling_rate"\nmax = 0.4\nvictim = 3', "victim = 3; expected a text"),
        ('on_inconclusive = "pass"\n[[check]]\nmetric = "fooling_rate"\nmax = 0.4', "expected separate, fail"),
    ],
)
def test_policies_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_policy(write(tmp_path / "p.toml", text))
    assert "p.toml" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "uapgen.evaluation/2"}, "schema 'uapgen.evaluation/2'"),
        ({"rows": []}, "holds no row"),
        ({"rows": None}, "not a whole"),
        ({"victims": []}, "not a whole"),
        ({"complete": None, "uaps": []}, "not a whole"),
        ({"rows": results(fooling_rate=None)["rows"]}, "fooling_rate is missing"),
        ({"rows": results(fooling_rate={"count": 5, "n": 4, "rate": 1.25})["rows"]}, "counts 5 of 4"),
        ({"rows": results(fooling_rate={"count": 3, "n": 4, "rate": 0.5})["rows"]}, "the file was changed"),
        ({"rows": results(fooling_rate={"count": 0.5, "n": 4, "rate": 0.125})["rows"]}, "counts 0.5"),
        ({"rows": results(eps_255=-1)["rows"]}, "eps_255"),
    ],
)
def test_results_that_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UapgenError, match=message) as error:
        load_results(write(tmp_path / "r.json", {**results(), **change}))
    assert "r.json" in str(error.value)


def test_nan_is_no_result(tmp_path: Path) -> None:
    text = json.dumps(results()).replace('"rate": 0.3', '"rate": NaN')
    with pytest.raises(UapgenError, match="NaN is no result"):
        load_results(write(tmp_path / "r.json", text))
    for text, message in (("[]", "JSON list"), ("{", "cannot be read"), ("[" * 100_000, "cannot be read")):
        with pytest.raises(UapgenError, match=message):
            load_results(write(tmp_path / "r.json", text))
    with pytest.raises(UapgenError, match="is not there"):
        load_results(tmp_path / "none.json")


def test_junit_as_other_programs_read_it() -> None:
    document = results(40)
    document["rows"] += [{**row, "victim": "tiny"} for n in (90, 1) for row in results(n)["rows"]]
    found = gate(read_results(document, "out/\x07r\ud800.json"), Policy((Check("fooling_rate", max=0.4, name="<&>"),)))
    root = ElementTree.fromstring(to_junit(found))
    suite = root[0]
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
        "skipped": "0",
    }
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [["error"], ["failure"], ["system-out"]]
    assert all(case.get("classname") and "<&>" in str(case.get("name")) for case in suite)
    text = suite[1][0].text or ""
    assert "90 of 100" in text
    assert "uapgen evaluate u.safetensors" in text


def test_markdown_has_one_row_for_each_verdict() -> None:
    document = results(90, method="a|b")
    text = to_markdown(check_limit(read_results(document), 0.4))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert "❌ failed" in text
    assert "90.0% [82.6, 94.5]" in rows[2]


def mutations(data: bytes, count: int) -> list[bytes]:
    """Deterministic damage: bytes flipped, cut, doubled, and tokens that readers like to trip over."""
    draw = random.Random(7)
    tokens = [b"null", b"-1", b"1e999", b"NaN", b"{}", b"[]", b'""', b"true", b"9" * 400, b"\xff", b"\x00", b"[[", b"'"]
    made = []
    for _ in range(count):
        held = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            at, end = sorted((draw.randrange(len(held) + 1), draw.randrange(len(held) + 1)))
            kind = draw.randrange(4)
            if kind == 0 and held:
                held[at % len(held)] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del held[at : min(end, at + 40)]
            elif kind == 2:
                held[at:at] = draw.choice(tokens)
            else:
                held[at : at + draw.randrange(1, 8)] = draw.choice(tokens)
        made.append(bytes(held))
    return made


def leaves(document: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all values in a document, for damage that stays JSON."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for key, value in items:
        found.append((*path, key))
        found += leaves(value, (*path, key)) if isinstance(value, dict | list) else []
    return found


FUZZ = int(os.environ.get("UAPGEN_FUZZ", "400"))


@pytest.mark.parametrize("what", ["policy", "results"])
def test_damaged_bytes_raise_nothing_but_uapgen_errors(tmp_path: Path, what: str) -> None:
    """UAPGEN_FUZZ=100000 is the full count."""
    file, good = tmp_path / "damaged", (POLICY if what == "policy" else json.dumps(results())).encode()
    refused = 0
    for data in mutations(good, FUZZ):
        file.write_bytes(data)
        try:
            policy = load_policy(file) if what == "policy" else Policy((Check("fooling_rate", max=0.4),))
            found = gate(load_results(file) if what == "results" else read_results(results()), policy)
            ElementTree.fromstring(to_junit(found))
        except UapgenError:
            refused += 1
    assert FUZZ * 0.3 < refused < FUZZ


def test_damaged_values_raise_nothing_but_uapgen_errors() -> None:
    draw = random.Random(8)
    values = [None, True, -1, 0, 1e308, 10**400, "x", "\ud800", [], {}, [1], {"a": 1}, 0.5]
    for _ in range(FUZZ):
        document = results()
        document["rows"].append(copy.deepcopy(document["rows"][0]))
        path = draw.choice(leaves(document))
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = draw.choice(values)
        try:
            found = check_limit(read_results(document), 0.4)
            ElementTree.fromstring(to_junit(found))
            to_markdown(found)
        except UapgenError:
            continue


def run(place: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    source = str(ROOT)
    environment = {k: v for k, v in os.environ.items() if k != "GITHUB_STEP_SUMMARY"}
    return subprocess.run(
        [sys.executable, "-m", "uapgen", *words],
        cwd=place,
        env={**environment, "PYTHONPATH": source, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "größe"
    folder.mkdir()
    write(folder / "p.toml", POLICY)
    for name, fooled in (("good", 10), ("bad", 90), ("between", 40)):
        write(folder / f"{name}.json", results(fooled))
    return folder


def test_the_whole_command_loads_nothing_heavy(place: Path) -> None:
    code = """
import sys
from uapgen.cli import main
sys.argv[1:] = "gate good.json --policy p.toml --junit j.xml --summary s.md".split()
try:
    main()
finally:
    print([name for name in ("torch", "numpy", "timm", "PIL", "jinja2") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert (place / "j.xml").is_file() and (place / "s.md").is_file()


def test_exit_codes_of_the_command(place: Path) -> None:
    assert run(place, "gate", "good.json", "--policy", "p.toml").returncode == 0
    done = run(place, "gate", "bad.json", "--policy", "p.toml", "--junit", "out/j.xml", "--summary", "s.md")
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED")
    assert ElementTree.parse(place / "out" / "j.xml").getroot().get("failures") == "1"
    assert "❌" in (place / "s.md").read_text(encoding="utf-8")
    assert run(place, "gate", "between.json", "--max-fooling-rate", "0.4").returncode == 4
    for words, code, message in (
        (["good.json"], 2, "--policy"),
        (["good.json", "--policy", "none.toml"], 2, "none.toml"),
        (["good.json", "--max-fooling-rate", "nan"], 2, "no share"),
        (["none.json", "--policy", "p.toml"], 3, "not there"),
        (["p.toml", "--policy", "p.toml"], 3, "cannot be read as results"),
    ):
        done = run(place, "gate", *words)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_the_jobs_summary_page_is_appended_to(place: Path) -> None:
    page = place / "page.md"
    page.write_text("before\n")
    done = run(place, "gate", "good.json", "--policy", "p.toml", GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == 0
    assert page.read_text(encoding="utf-8").startswith("before\n### Robustness gate: ✅")
    lost = run(place, "gate", "bad.json", "--policy", "p.toml", GITHUB_STEP_SUMMARY=str(place))
    assert lost.returncode == 1
    assert "summary is left out" in lost.stderr
