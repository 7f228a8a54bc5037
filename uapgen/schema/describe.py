"""Dataclasses as JSON Schema (draft 2020-12), for whoever reads our documents with other tools."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from . import bare, fields_of, hints_of, key_of, optional, required

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: type, name: str, *, closed: bool = False) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of documents of `kind`, called `name` (such as uapgen.evaluation/1)."""
    sections: dict[str, Any] = {}
    body = _section(kind, sections, closed)
    body["properties"].setdefault("schema", {"enum": [name]})  # any file may say what it is
    head = {"$schema": DIALECT, "$id": f"urn:{name.replace('.', ':').replace('/', ':')}", "title": name}
    return {**head, **body, **({"$defs": dict(sorted(sections.items()))} if sections else {})}


def _section(kind: type, sections: dict[str, Any], closed: bool) -> dict[str, Any]:
    hints = hints_of(kind)
    properties: dict[str, Any] = {}
    needed: list[str] = []
    for field in fields_of(kind):
        if field.metadata.get("flat"):
            inner = bare(hints[field.name])[0]
            part = inner.json_schema() if hasattr(inner, "json_schema") else _section(inner, sections, closed)
            properties |= part["properties"]
            needed += part.get("required", [])
        elif not (field.metadata.get("source") or field.metadata.get("apart")):
            properties[key_of(field)] = _schema_of(hints[field.name], sections, closed)
            needed += [key_of(field)] if required(field) and not optional(hints[field.name]) else []
    text = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return {
        "description": text,
        "type": "object",
        "properties": properties,
        **({"required": needed} if needed else {}),
        **({"additionalProperties": False} if closed else {}),
    }


def _schema_of(hint: Any, sections: dict[str, Any], closed: bool) -> dict[str, Any]:
    null, (hint, limits) = optional(hint), bare(hint)
    if null and hint is not Any:
        whole = Annotated[hint, limits] if limits else hint
        return {"anyOf": [_schema_of(whole, sections, closed), {"type": "null"}]}
    origin, inner = get_origin(hint), get_args(hint)
    if hasattr(hint, "json_schema") or dataclasses.is_dataclass(hint):
        if hint.__name__ not in sections:
            sections[hint.__name__] = {}  # a section that holds itself ends here
            own = hasattr(hint, "json_schema")
            sections[hint.__name__] = hint.json_schema() if own else _section(hint, sections, closed)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(inner[0], sections, closed)}
    if origin is dict or hint is dict:
        held = _schema_of(inner[1], sections, closed) if inner else {}
        return {"type": "object", **({"additionalProperties": held} if held else {})}
    if origin is Literal:
        return {"enum": list(inner)}
    names = {int: "integer", float: "number", str: "string", Path: "string", bool: "boolean"}
    return {**({"type": names[hint]} if hint in names else {}), **(limits.json_schema() if limits else {})}
