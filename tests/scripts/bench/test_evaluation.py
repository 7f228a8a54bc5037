"""The benchmark of `evaluate` counts the passes that it compares with; memory does not grow with the images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.evaluation.test_fooling import brightness_victim
from tests.images.test_sets import write_tree
from uapgen.images.sets import open_images

SCRIPTS = ROOT / "scripts" / "bench"


def test_the_passes_are_those_of_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import evaluation

    victim = brightness_victim()
    seen = {"": 0}
    victim.module.register_forward_hook(lambda module, x, y: seen.update({"": seen[""] + len(y)}))
    files = open_images(write_tree(tmp_path, *(f"{i}.png" for i in range(10))), victim.transform, num_classes=2)
    found = evaluation._compare(victim, files, batch=4, workers=0, rounds=1)
    assert found["passes_per_image"] == {"clean": 1, "perturbed": 1, "random floor": 1}
    assert seen[""] == 2 * 3 * 10 * 3  # a warm-up and a round; bare, in memory, of files; 10 images; 3 passes
    assert found["evaluate_in_memory_to_forward_passes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--tar"]])
def test_memory_does_not_grow_with_the_images(words: list[str]) -> None:
    command = [sys.executable, str(SCRIPTS), "memory", "--images", "1000", "--images", "10000", *words]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["bytes_per_further_image"] < found["bytes_of_an_image_decoded"]
    assert found["difference_mib"] < 20
