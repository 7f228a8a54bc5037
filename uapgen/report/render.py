"""A page as HTML in one file, or as Markdown."""

from __future__ import annotations

import base64
import re
from typing import Any

from markupsafe import Markup, escape

from .page import Cell, Page

FORMATS = ("html", "md")


def render(page: Page, form: str) -> str:
    """`form` is html (self-contained: style and pictures inside, no script) or md (tables; pictures stay away)."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("uapgen.report"),
        autoescape=form == "html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"breakable": _breakable, "inline": _inline, "row": _row, "plain": _plain}
    return environment.get_template(f"page.{form}").render(page=page)


def _breakable(text: str) -> Markup:
    """Names of victims and methods are long words: a line may end after each of their parts, but not before a %."""
    parts = re.split(r"(?<=[/:,_@+=])(?=\w)", text.replace(" %", "\N{NO-BREAK SPACE}%"))
    return Markup("<wbr>").join(escape(part) for part in parts)


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _plain(text: Any) -> str:
    """Text that Markdown takes as it is, on one line."""
    flat = " ".join(str(text).split())
    for mark in ("\\", "`", "*", "_", "|", "<", "[", "]"):
        flat = flat.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    return flat


def _row(line: list[Cell]) -> str:
    shown = (f"**{_plain(cell.text)}**" if cell.strong else _plain(cell.text) for cell in line)
    return f"| {' | '.join(shown)} |"
