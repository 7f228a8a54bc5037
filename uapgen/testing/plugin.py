"""pytest plugin: the fixture `assert_robust`. Installed with uapgen; loads torch only when a test asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import assert_robust as plain


@pytest.fixture
def assert_robust(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., Any]:
    """`uapgen.testing.assert_robust` that keeps crafted patterns in pytest's cache and records rates for JUnit."""
    cache = getattr(request.config, "cache", None)  # absent under `-p no:cacheprovider`
    folder = Path(cache.mkdir("uapgen")) if cache is not None else None
    return functools.partial(plain, folder=folder, record=record_property)
