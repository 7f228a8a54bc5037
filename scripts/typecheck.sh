#!/usr/bin/env bash
# mypy over the tree as it installs: attacks/ and victims/ are uapgen.attacks and uapgen.victims there, which a checkout hides from mypy.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/uapgen"
ln -s "$root"/uapgen/* "$root/attacks" "$root/victims" "$tree/uapgen/"
cd "$tree"
MYPYPATH="$tree" "${MYPY:-mypy}" --config-file "$root/pyproject.toml" --cache-dir "$root/.mypy_cache" -p uapgen
