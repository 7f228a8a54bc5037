"""The tour in docs/: what its page says is what its commands do."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.tour import ROOT, commands, main


def test_the_page_states_exit_codes() -> None:
    found = commands((ROOT / "docs" / "tour.md").read_text())
    assert {code for _, code in found} == {0, 1, 2, 3, 4}
    assert all(text.startswith(("uapgen ", "printf ")) for text, _ in found)


@pytest.mark.slow
def test_the_tour_runs_from_top_to_bottom(tmp_path: Path) -> None:
    assert main(tmp_path) == 0
