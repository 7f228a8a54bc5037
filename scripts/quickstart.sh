#!/usr/bin/env bash
# From nothing to a measured perturbation: an environment, a data-free UAP for the embedded victim, its fooling rate, its picture.
# Crafting takes three to eight minutes on two CPU cores (187 to 460 seconds, by processor). OUT=DIR chooses where results go, BUDGET=standard a stronger pattern.
source "$(dirname "$0")/environment.sh"
install lite
out=${OUT:-quickstart-out}
mkdir -p "$out"
uapgen="$venv/bin/uapgen"
photo=$("$venv/bin/python" -c 'import foolbox, pathlib; print(pathlib.Path(foolbox.__file__).parent / "data/imagenet_03_990.jpg")')
"$uapgen" craft --victim embedded/efficientnet_lite0 --eps 10 --seed 0 --budget "${BUDGET:-quick}" -o "$out/uap.safetensors"
"$uapgen" evaluate "$out/uap.safetensors" --victim embedded/efficientnet_lite0 --data foolbox --json "$out/result.json"
"$uapgen" show "$out/uap.safetensors" --png "$out/uap.png" --on "$photo"
echo
echo "picture: $out/uap.png   numbers: $out/result.json (n = 20 is a smoke test; give --data your own images for a figure)"
