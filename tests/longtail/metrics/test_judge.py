"""A judge of samples: what they were made for decides halves, classes and training sets, not what they look like."""

from __future__ import annotations

import pytest

from tests.longtail.brightness import CLASSES, bright, brightness_victim
from uapgen.longtail import Recipe
from uapgen.longtail.metrics.judge import Judge

CAS = Recipe(depth=8, width=2, epochs=1, batch=20, loss="ce", deferred=False, warmup=0)


def test_labels_that_were_asked_for_are_used_and_not_those_that_are_seen() -> None:
    """Every sample was made for the class after the one that it shows: all figures of classes differ."""
    data = bright(100)
    counts = data.counts() + 10 * (data.counts().cumsum(0))  # one half of the classes is larger than the other
    judge = Judge(brightness_victim(), data, cas=CAS, kid_blocks=2, pairs=5)
    right, wrong, unlabelled = (
        judge.score(data.images, labels, counts) for labels in (data.labels, (data.labels + 1) % CLASSES, None)
    )
    assert (right["label agreement"]["value"], wrong["label agreement"]["value"]) == (1, 0)
    assert "label agreement" not in unlabelled
    by_class = [name for name in right if "/" in name or name in ("MS-SSIM", "CAS")]
    assert len(by_class) >= 4, sorted(right)
    for name in by_class:
        assert wrong[name]["value"] != right[name]["value"], name
        assert unlabelled[name]["value"] == pytest.approx(right[name]["value"]), name  # seen rightly, all of them
    assert wrong["kl"]["value"] == right["kl"]["value"]
