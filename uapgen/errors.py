"""The one family of errors that a user can cause: what was given, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UapgenError(Exception):
    """A run cannot go on: weights, data, device or file are not what they should be. The command line exits with 3."""

    exit_code = 3


class UsageError(UapgenError):
    """An argument is wrong, and no work was done. The command line exits with 2."""

    exit_code = 2


def did_you_mean(given: str, known: Iterable[str], n: int = 3) -> str:
    """`"; did you mean 'a' or 'b'?"`, or nothing when no known name is near."""
    near = get_close_matches(given, list(known), n=n, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
