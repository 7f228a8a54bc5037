#!/usr/bin/env bash
# An environment, lint, types, tests. Arguments go to pytest: bash scripts/test.sh -m slow
# With --isa first, the tests run four times (slow): with the instructions of a processor of 2008, with those of one of
# 2013, with this machine's own, and with other weights in the tests' networks. Other arguments still go to pytest.
source "$(dirname "$0")/environment.sh"
isa=
[ "${1:-}" = --isa ] && isa=1 && shift
install dev,lite
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
MYPY="$venv/bin/mypy" bash scripts/typecheck.sh
tests() { # NAME [VARIABLE=VALUE ...] -- arguments of pytest
  local name=$1 variables=()
  shift
  while [ "$1" != -- ]; do variables+=("$1") && shift; done
  shift
  echo "tests: $name ${variables[*]}"
  env "${variables[@]}" "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
}
if [ -z "$isa" ]; then
  tests "this processor" -- "$@"
else
  failed=()
  tests "SSE 4.1" ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 -- "$@" || failed+=("SSE 4.1")
  tests "AVX2" ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 -- "$@" || failed+=("AVX2")
  tests "this processor" -- "$@" || failed+=("this processor")
  tests "other weights" "UAPGEN_TEST_SEED=$((${UAPGEN_TEST_SEED:-0} + 1))" -- "$@" || failed+=("other weights")
  [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" && exit 1; }
fi
