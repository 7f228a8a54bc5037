#!/usr/bin/env bash
# From nothing to a measured perturbation: an environment, a data-free UAP for the embedded victim, its fooling rate, its picture.
# About six minutes on two CPU cores after the install.  OUT=DIR chooses where results go, BUDGET=standard a stronger pattern.
source "$(dirname "$0")/environment.sh"
install lite
out=${OUT:-quickstart-out}
mkdir -p "$out"
uapgen="$venv/bin/uapgen"
"$uapgen" craft --victim embedded/efficientnet_lite0 --eps 10 --seed 0 --budget "${BUDGET:-quick}" -o "$out/uap.safetensors"
"$uapgen" evaluate "$out/uap.safetensors" --victim embedded/efficientnet_lite0 --data foolbox --json "$out/result.json"
"$uapgen" show "$out/uap.safetensors" --png "$out/uap.png"
echo
echo "picture: $out/uap.png   numbers: $out/result.json (n = 20: a smoke test; use --data DIR with your own images for a figure)"
