#!/usr/bin/env bash
# An environment, lint, types, tests. Arguments go to pytest: bash scripts/test.sh -m slow
source "$(dirname "$0")/environment.sh"
install dev,lite
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
MYPY="$venv/bin/mypy" bash scripts/typecheck.sh
"$venv/bin/python" -m pytest -n auto "$@"
