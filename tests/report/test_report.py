"""Reports: one file that needs nothing else, readable by people and by their screen readers, true to the counts."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.cli.test_evaluate import VICTIM
from tests.conftest import ROOT, gratings
from uapgen.compare import compare
from uapgen.errors import UapgenError, UsageError
from uapgen.perturbation import Perturbation
from uapgen.report import write_report
from uapgen.report.page import _plain
from uapgen.victims import Victim

VOID = {"meta", "img", "link", "br", "hr", "wbr"}


class Reader(HTMLParser):
    """Keeps images, tables, ids and links; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str | None] = []
        self.links: list[str | None] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.tags.append((tag, held))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(held)
        if "id" in held:
            self.ids.append(held["id"])
        if tag == "a":
            self.links.append(held["href"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """150 greys in data/ with labels, up.safetensors (+9 levels), result.json and p.npz of them."""
    from uapgen.cli.evaluate import command

    (tmp_path / "brightness.py").write_text(VICTIM)
    (tmp_path / "data").mkdir()
    lines = ["file,label"]
    for i in range(150):
        Image.new("RGB", (4, 4), (i,) * 3).save(tmp_path / "data" / f"{i:03}.png")
        lines.append(f"{i:03}.png,{int(i < 128)}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(lines))
    delta = torch.full((3, 4, 4), 9 / 255)
    uap = Perturbation.create(delta, eps=10 / 255, method={"name": "<b>&shift"}, data={"class": "none"})
    uap.save(tmp_path / "up.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = "up.safetensors --victim brightness:build --data data --workers 0 --json result.json --predictions p.npz"
    done = CliRunner().invoke(command, words.split())
    assert done.exit_code == 0, done.output
    return tmp_path


def pixels(image: dict[str, str | None]) -> np.ndarray:
    data = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_the_page_is_one_accessible_file(place: Path) -> None:
    write_report("result.json", "r.html", predictions="p.npz", images="data", victim="brightness:build")
    text = Path("r.html").read_text(encoding="utf-8")
    page = Reader(text)
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe"} & set(tags)
    assert "http" not in re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    assert all(image["alt"] and str(image["src"]).startswith("data:image/png;base64,") for image in page.images)
    assert len(page.images) == 1 + 12  # the pattern and six pairs; it is flat, so that it has no spectrum
    assert tags.count("caption") == tags.count("table") >= 4
    assert all("scope" in held for tag, held in page.tags if tag == "th")
    assert all(held.get("tabindex") == "0" and held.get("aria-label") for _, held in page.tags if held.get("role"))
    assert len(set(page.ids)) == len(page.ids)
    assert {f"#{name}" for name in page.ids} == set(page.links)
    assert "&lt;b&gt;&amp;shift" in text
    assert "<b>" not in text


def test_the_page_says_what_was_counted(place: Path) -> None:
    write_report("result.json", "r.html", predictions="p.npz")
    text = Path("r.html").read_text(encoding="utf-8")
    assert "changes 6.0% of the predictions of brightness" in text  # 9 of 150
    assert "6.0 [3.2, 11.0]" in text
    assert "n = 150 is below 1000" in text
    assert "no image was seen" in text
    # of the labelled 128 dark and 22 bright images, 9 dark ones cross the threshold
    rows = re.findall(r'<tr>\s*<th scope="row"[^>]*>(\d)</th>\s*<td[^>]*>([\d.]+)</td>', text)
    assert sorted(rows) == [("0", "0.0"), ("1", "7.0")]


def test_pairs_show_what_the_victim_sees(place: Path) -> None:
    write_report("result.json", "r.html", images="data", victim="brightness:build")
    shown = Reader(Path("r.html").read_text(encoding="utf-8")).images[1:]
    assert len(shown) == 12
    for before, after in zip(shown[::2], shown[1::2], strict=True):
        np.testing.assert_array_equal(pixels(after) - pixels(before), 9)
    assert "the victim sees 1, " in str(shown[0]["alt"])


def test_pairs_of_other_weights_are_refused(place: Path) -> None:
    with pytest.raises(UapgenError, match="were measured"):
        write_report("result.json", "r.html", images="data", victim="brightness:darker")
    assert not Path("r.html").exists()


def test_what_is_missing_is_said(place: Path) -> None:
    Path("up.safetensors").unlink()
    write_report("result.json", "r.html")
    text = Path("r.html").read_text(encoding="utf-8")
    assert "up.safetensors is not there" in text
    assert "Not in this report" in text
    assert "The patterns" not in text


def test_predictions_of_another_run_are_refused(place: Path) -> None:
    held = dict(np.load("p.npz"))
    held["adv"] = held["clean"][:, None]
    np.savez("other.npz", **held)
    Path("text.npz").write_text("no arrays")
    for name, message in (("other.npz", "another evaluation"), ("text.npz", "cannot be read"), ("no", "cannot be")):
        with pytest.raises(UapgenError, match=message):
            write_report("result.json", "r.html", predictions=name)


def test_markdown_has_the_tables(place: Path) -> None:
    write_report("result.json", "r.md", predictions="p.npz")
    lines = Path("r.md").read_text(encoding="utf-8").splitlines()
    tables = "\n".join(lines).split("\n\n")
    tables = [block.splitlines() for block in tables if block.startswith("|")]
    assert len(tables) >= 4
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
        assert len(widths) == 1
        assert re.fullmatch(r"\|( ---:? \|)+", table[1])
    assert any("**6.0 \\[3.2, 11.0\\]**" in line for line in lines)
    assert _plain("a|b\n*c*") == "a\\|b \\*c\\*"


def test_a_comparison(tiny_victim: Victim, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i, picture in enumerate(gratings(12, seed=5)[0]):
        levels = (picture * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        Image.fromarray(levels).save(tmp_path / "data" / f"{i}.png")
    other = Victim(tiny_victim.module, name="twin", preprocessing=tiny_victim.preprocessing, device="cpu")
    run = tmp_path / "run"
    others = {"twin": other}
    compare({"tiny": tiny_victim}, "noise", tmp_path / "data", run, transfer_victims=others, budget=8, workers=0)
    page = write_report(run, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    reader = Reader(text)
    found = json.loads((run / "results.json").read_text())
    rate = 100 * found["rows"][0]["fooling_rate"]["mean"]
    assert f"noise reaches {rate:.1f}%" in page.lead
    assert {section.title for section in page.sections} >= {"Transfer", "The patterns", "Results on tiny"}
    assert len(reader.images) == 3  # curves, one pattern, spectra
    assert 'style="--share: ' in text
    write_report(run / "results.json", tmp_path / "r.md")
    with pytest.raises(UsageError, match="goes with the results of evaluate"):
        write_report(run, tmp_path / "r.html", predictions="p.npz")


def test_damaged_results_raise_nothing_but_uapgen_errors(place: Path) -> None:
    good = json.loads(Path("result.json").read_text())
    for path in (("victims", 0, "mean"), ("uaps", 0, "card"), ("rows", 0, "dominant_classes"), ("warnings",)):
        document = json.loads(json.dumps(good))
        held = document
        for key in path[:-1]:
            held = held[key]
        for value in (None, [], 3, "x"):
            held[path[-1]] = value
            Path("damaged.json").write_text(json.dumps(document))
            with suppress(UapgenError):
                write_report("damaged.json", "r.md")


def test_text_is_legible_in_both_schemes() -> None:
    """WCAG 2.2: a contrast of 4.5 for text, on the page, on cards and on the hottest cell of a heat map."""
    css = (ROOT / "uapgen/report/templates/style.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", css, re.S):
        colours = {name: rgb(code) for name, code in re.findall(r"--(\w+): (#\w{6})", block)}
        most = float(re.findall(r"--most: (\d+)%", block)[0]) / 100
        hottest = [most * h + (1 - most) * c for h, c in zip(colours["heat"], colours["card"], strict=True)]
        for ink, paper in (("ink", "page"), ("soft", "page"), ("soft", "card"), ("accent", "page"), ("accent", "card")):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
        assert contrast(colours["ink"], hottest) >= 4.5


def rgb(code: str) -> list[float]:
    return [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def contrast(one: list[float], two: list[float]) -> float:
    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_the_command(place: Path) -> None:
    source = ROOT

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{place}"}
        command = [sys.executable, "-m", "uapgen", "report", *words]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)

    assert run("result.json", "-o", "out/r.html").returncode == 0
    assert (place / "out" / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    for words, code, message in (
        (["result.json", "-o", "r.pdf"], 2, "--format"),
        (["none.json", "-o", "r.html"], 3, "not there"),
        (["data", "-o", "r.html"], 3, "results.json"),
    ):
        done = run(*words)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert message in done.stderr


def test_patterns_that_are_gone_cost_one_line(tiny_victim: Victim, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i, picture in enumerate(gratings(8, seed=5)[0]):
        levels = (picture * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        Image.fromarray(levels).save(tmp_path / "data" / f"{i}.png")
    run = tmp_path / "run"
    compare({"tiny": tiny_victim}, "noise,fff", tmp_path / "data", run, budget=8, workers=0)
    patterns = sorted((run / "uaps").iterdir())
    patterns[0].unlink()
    pairs = [s for s in write_report(run, tmp_path / "r.html").sections if s.title == "Images and predictions"]
    assert sum("Not shown, because" in note for note in pairs[0].notes) == 1
    patterns[1].unlink()
    pairs = [s for s in write_report(run, tmp_path / "r.html").sections if s.title == "Images and predictions"]
    assert pairs[0].notes == [f"No pattern is shown: their files are not in {run / 'uaps'}."]
