"""What a page is made of, and a page as HTML in one file, or as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from ..evaluation.intervals import Rate


@dataclass(frozen=True)
class PageCell:
    """Text of a table's cell; `share` in [0,1] shades it in a heat map, `strong` sets it apart."""

    text: str
    share: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """`head` names the columns; the first `left` of them are text, the first of all is each row's header."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[PageCell]]
    left: int = 1


@dataclass(frozen=True)
class Picture:
    """PNG bytes, what it shows in words (for those who do not see it), and the line below it."""

    png: bytes
    alt: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Pair:
    """An image without and with the pattern, and what the victim says of each."""

    before: Picture
    after: Picture
    changed: bool


@dataclass
class Section:
    """A heading and what stands under it, in this order."""

    title: str
    text: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.text or self.facts or self.tables or self.pictures or self.pairs or self.notes)

    @property
    def anchor(self) -> str:
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Page:
    """`lead` is the one sentence that a reader takes away; `facts` are (label, value, remark) under it."""

    title: str
    lead: str
    facts: Sequence[tuple[str, str, str]]
    sections: Sequence[Section]
    provenance: list[tuple[str, str]]


def cells(*values: object) -> list[PageCell]:
    return [
        value if isinstance(value, PageCell) else PageCell("-" if value is None else str(value)) for value in values
    ]


def rate_text(rate: Rate | None) -> str:
    """`62.3 [59.2, 65.3]`, in per cent."""
    return "-" if rate is None else str(rate)


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


def _row(line: list[PageCell]) -> str:
    shown = (f"**{_plain(cell.text)}**" if cell.strong else _plain(cell.text) for cell in line)
    return f"| {' | '.join(shown)} |"
