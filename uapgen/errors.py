"""The one family of errors that a user can cause: what was given, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UapgenError(Exception):
    """A run cannot go on: weights, data, device or file are not what they should be. The command line exits with 3."""

    exit_code = 3


class UsageError(UapgenError):
    """An argument is wrong, and no work was done. The command line exits with 2."""

    exit_code = 2


class UnfitVictimError(UsageError):
    """A method finds nothing to work on in this victim; in a comparison the row fails, and the others go on."""


def did_you_mean(given: str, known: Iterable[str], n: int = 3) -> str:
    """`"; did you mean 'a' or 'b'?"`, or nothing when no known name is near.

    Where no whole name is, those of which a word is: `gan_width` for `widht`.
    """
    names = list(known)
    near = get_close_matches(given, names, n=n, cutoff=0.6)
    if not near:
        words = get_close_matches(given, {word for name in names for word in name.split("_")}, n=1, cutoff=0.7)
        near = [name for name in names if set(words) & set(name.split("_"))][:n]
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


_HTML = (b"<!doctype", b"<html", b"<head", b"<?xml")


def looks_like(path: Path) -> str:
    """One clause for an error message: what `path` seems to be and what to do with it."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "it is empty; fetch it again"
    if head.lstrip().lower().startswith(_HTML):
        return "it is an HTML page, probably of a login or an error; download the file itself"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "it is a torch or pickle file; 'uapgen import' reads those that hold one plain tensor"
    if head.startswith((b"\x93NUMPY", b"\x89PNG")):
        return "it is a bare array or picture; use 'uapgen import'"
    if head[8:9] == b"{":
        return "it is a truncated or damaged safetensors file; fetch it again"
    return "its bytes are of no kind that uapgen knows; fetch it again"
