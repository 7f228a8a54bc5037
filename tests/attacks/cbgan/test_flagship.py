"""The main job on a real ImageNet victim. Minutes: `bash scripts/test.sh -m slow`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uapgen.attacks import craft
from uapgen.evaluation import evaluate
from uapgen.images.sets import open_images
from uapgen.runtime import start_process
from uapgen.victims import load_victim

DATA = os.environ.get("UAPGEN_EVAL_DATA", "")  # a folder of labelled ImageNet photographs


@pytest.mark.slow
@pytest.mark.skipif(not Path(DATA or "missing").is_dir(), reason="set UAPGEN_EVAL_DATA to a folder of ImageNet images")
def test_quick_fools_85_percent_of_real_photographs(tmp_path: Path) -> None:
    start_process()
    victim = load_victim("embedded/efficientnet_lite0")
    uap = craft(victim, budget="quick", folder=tmp_path / "run")
    assert uap.data_class == "none"
    assert uap.card["cost"]["image_gradients"] <= 6000
    result = evaluate(uap, victim, open_images(DATA, victim.transform, limit=1000))
    rate, floor = result.rows[0].fooling_rate, result.noise[0].fooling_rate
    assert rate.value >= 0.85
    assert floor.value < 0.25


@pytest.mark.slow
def test_a_small_budget_already_beats_the_floor_on_packaged_photographs(tmp_path: Path) -> None:
    """Twenty images know a rate to 20 points: enough to tell a pattern from noise."""
    start_process()
    victim = load_victim("embedded/efficientnet_lite0")
    uap = craft(victim, budget=1200, folder=tmp_path / "run")
    result = evaluate(uap, victim, open_images("foolbox", victim.transform))
    assert result.rows[0].fooling_rate.count >= result.noise[0].fooling_rate.count + 6
