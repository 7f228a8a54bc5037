"""Whether every field of a settings class reaches what it decides: a table with a case for each of them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest


class Change(NamedTuple):
    """Another value for a field, and what both runs need so that the field has something to decide."""

    value: Any
    given: dict[str, Any] = {}  # noqa: RUF012  (read, never written)


def cases(kind: type, table: dict[str, Change], elsewhere: dict[str, str] | None = None) -> list[Any]:
    """Parameters (field, change) of a test. elsewhere: fields that this result cannot show, with the reason.

    Fails while the tests are collected when a field is in neither: whoever adds a field says what it changes.
    """
    names, listed = {field.name for field in dataclasses.fields(kind)}, [*table, *(elsewhere or {})]
    assert sorted(listed) == sorted(names), f"{kind.__name__}: {names ^ set(listed)}"
    return [pytest.param(name, change, id=name) for name, change in table.items()]


def both(base: Any, field: str, change: Change) -> tuple[Any, Any]:
    """The settings that differ in the field alone."""
    given = dataclasses.replace(base, **change.given)
    assert getattr(given, field) != change.value
    return given, dataclasses.replace(given, **{field: change.value})
