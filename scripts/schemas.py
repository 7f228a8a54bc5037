"""Writes docs/schema/*.json: JSON Schema (draft 2020-12) of every document that uapgen reads or writes.

python scripts/schemas.py [FOLDER]

They follow from the dataclasses; a test checks that the committed files do. TOML files (policies, plans) are described
as the JSON that the same tables are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from uapgen.evaluation.comparison import COMPARISON, Comparison
from uapgen.evaluation.document import EVALUATION, EvaluationDocument
from uapgen.gate.policy import Policy
from uapgen.longtail.bench.plan import BenchPlan
from uapgen.longtail.gold.plan import GoldPlan
from uapgen.longtail.synthetic.plan import SyntheticPlan
from uapgen.perturbation.card import SCHEMA, Card
from uapgen.schema.describe import json_schema

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schema"
OPEN = {EVALUATION: EvaluationDocument, COMPARISON: Comparison, SCHEMA: Card}  # a later version may add entries
CLOSED = {
    "uapgen.policy/1": Policy,
    **{plan.SCHEMA: plan for plan in (BenchPlan, GoldPlan, SyntheticPlan)},
}


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each kind of document by file name: uapgen.evaluation/1 is evaluation-1.json."""
    found = {name: json_schema(kind, name) for name, kind in OPEN.items()}
    found |= {name: json_schema(kind, name, closed=True) for name, kind in CLOSED.items()}
    return {f"{name.removeprefix('uapgen.').replace('/', '-')}.json": schema for name, schema in found.items()}


def as_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=1) + "\n"


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(as_text(schema))
        print(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
