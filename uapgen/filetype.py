"""What a file that does not open seems to be, so that an error can say it."""

from __future__ import annotations

from pathlib import Path

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
