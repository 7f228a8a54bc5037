"""The committed JSON Schemas are those that the dataclasses give, and the documents of this repository follow them."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.schemas import FOLDER, as_text, main, schemas
from tests.conftest import ROOT
from tests.gate.test_gate import POLICY
from uapgen.evaluation.stored import load_results
from uapgen.perturbation import Perturbation
from uapgen.schema import to_json

RESULTS = [
    file
    for file in sorted((ROOT / "results").glob("**/*.json"))
    if '"schema": "uapgen.' in file.read_text()[:100] and file.name != "options.json"
]


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "$") -> list[str]:
    """Where `value` is not as `schema` says: the part of JSON Schema that ours use."""
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, path)
    if "anyOf" in schema:
        each = [faults(value, option, root, path) for option in schema["anyOf"]]
        return [] if [] in each else each[0]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path} is {value!r}"]
    kinds = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "array": list, "object": dict}
    kind = schema.get("type")
    if kind == "null":
        return [] if value is None else [f"{path} is not null"]
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{path} is no {kind}"]
    found = []
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{path} = {value} is out of range")
    if isinstance(value, list):
        found += [
            f for i, each in enumerate(value) for f in faults(each, schema.get("items", {}), root, f"{path}[{i}]")
        ]
    if isinstance(value, dict):
        own, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        found += [f"{path} lacks {key}" for key in schema.get("required", []) if key not in value]
        for key, each in value.items():
            if key in own or other is not False:
                found += faults(each, own.get(key, other), root, f"{path}.{key}")
            else:
                found.append(f"{path}.{key} is unknown")
    return found


def against(value: Any, name: str) -> list[str]:
    schema = json.loads((FOLDER / name).read_text())
    return faults(value, schema, schema)


def test_the_committed_files_are_the_generated_ones(tmp_path: Path) -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(schemas())
    for name, schema in schemas().items():
        assert (FOLDER / name).read_text() == as_text(schema), "run python scripts/schemas.py"
        assert json.loads(as_text(schema))["title"].startswith("uapgen.")
    main(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(schemas())


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_results_of_this_repository_are_read_written_and_described(file: Path) -> None:
    table = json.loads(file.read_text())
    assert json.dumps(to_json(load_results(file).document)) == json.dumps(table)  # the order of keys too
    assert against(table, f"{table['schema'].removeprefix('uapgen.').replace('/', '-')}.json") == []


def test_a_card_is_as_its_schema_says() -> None:
    delta = torch.full((3, 4, 4), 0.01)
    made = Perturbation.create(
        delta, eps=0.02, method={"name": "m", "params": {"x": 1}}, data={"class": "none"}, seed=1
    )
    for uap in (made, made.resized(8)):
        assert against(uap.card, "uap-1.json") == []
    assert against({**made.card, "budget": {"norm": "linf"}}, "uap-1.json") == ["$.budget lacks eps"]


def test_policies_and_plans_are_as_their_schemas_say() -> None:
    assert against(tomllib.loads(POLICY), "policy-1.json") == []
    assert against({"check": [{"metric": "fooling_rate", "max": 40}], "x": 1}, "policy-1.json") == [
        "$.check[0].max = 40 is out of range",
        "$.x is unknown",
    ]
    for folder, name in (("bench", "bench-plan"), ("gold", "gold-plan"), ("synthetic", "classify-plan")):
        presets = sorted((ROOT / "uapgen" / "longtail" / folder / "presets").glob("*.toml"))
        assert presets
        for preset in presets:
            assert against(tomllib.loads(preset.read_text()), f"{name}-1.json") == [], preset


def test_damage_is_seen_by_schema_and_reader_alike() -> None:
    table = json.loads(next(file for file in RESULTS if "quick" in file.name).read_text())
    for path, value in ((("rows", 0, "n"), "x"), (("uaps", 0, "card", "budget"), None), (("victims",), 3)):
        damaged = copy.deepcopy(table)
        place = damaged
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert against(damaged, "evaluation-1.json")
