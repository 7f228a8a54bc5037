"""Files of any content are read or refused, and nothing else: every reader that a user can point at a file.

UAPGEN_FUZZ=100000 is the full count, for policies and results in test_gate too:
UAPGEN_FUZZ=100000 python -m pytest -n auto tests/test_fuzz.py tests/test_gate.py -k damaged
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from tests.evaluation.test_fooling import brightness_victim, shift
from tests.gate.test_gate import FUZZ, leaves, mutations
from tests.images.test_decode_tars import pack
from tests.images.test_sets import write_tree
from uapgen.cli.evaluate import command as evaluate_command
from uapgen.cli.options import _table, _values
from uapgen.cli.show import command as show
from uapgen.errors import UapgenError
from uapgen.evaluation import evaluate
from uapgen.evaluation.table import document, render
from uapgen.images.sets import open_images
from uapgen.longtail.gan_recipe import GanRecipe
from uapgen.longtail.generator import KIND, load_generator
from uapgen.perturbation import Perturbation
from uapgen.perturbation.exchange import export, import_perturbation
from uapgen.runfolder import load_state, save_state
from uapgen.schema import to_json
from uapgen.victims.weights import load_into

VALUES = [None, True, -1, 0, 1e308, 10**400, "x", "\ud800", [], {}, [1], {"a": 1}, 0.5]


def survives(read: Callable[[Path], object], good: bytes, file: Path, count: int = FUZZ) -> int:
    """How many of the damaged files were refused; anything but a UapgenError comes through."""
    refused = 0
    for data in mutations(good, count):
        file.write_bytes(data)
        try:
            read(file)
        except UapgenError:
            refused += 1
    return refused


def test_damaged_perturbation_files(tmp_path: Path) -> None:
    file = tmp_path / "uap.safetensors"
    shift(9).save(file)
    assert survives(Perturbation.load, file.read_bytes(), file) > FUZZ * 0.9  # hashed: little can change unseen


def test_damaged_cards_are_refused_or_can_be_measured(tmp_path: Path) -> None:
    draw, file = random.Random(9), tmp_path / "uap.safetensors"
    victim, pixels = brightness_victim(), torch.full((2, 3, 4, 4), 120, dtype=torch.uint8)
    images = open_images((pixels, [0, 1]), victim)
    good = Perturbation.create(
        shift(9).delta,
        eps=10 / 255,
        method={"name": "shift", "params": {"target": 0}},
        data={"class": "none", "sources": [{"source": "x"}]},
        victim=victim.describe(),
    )
    for _ in range(max(FUZZ // 4, 100)):
        card = copy.deepcopy(good.card)
        path = draw.choice(leaves(card))
        place = card
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = draw.choice(VALUES)
        save_file({"delta": good.delta}, file, metadata={"uapgen": json.dumps(card).replace("Infinity", "1e999")})
        try:
            uap = Perturbation.load(file)
            result = document([uap], ["f"], [evaluate(uap, victim, images, workers=0)], data="d")
            json.dumps(to_json(result))
            render(result).encode()
            shown = CliRunner().invoke(show, [str(file)])
            assert isinstance(shown.exception, UapgenError | None), (path, place[path[-1]], shown.exception)
        except UapgenError:
            continue


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".png", ".safetensors"])
def test_damaged_files_of_others(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    if suffix == ".safetensors":
        save_file({"delta": shift(9).delta}, file)
    else:
        export(shift(9), file)
    survives(lambda f: import_perturbation(f, unit="0..1", layout="CHW", eps=10 / 255), file.read_bytes(), file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damaged_weights(tmp_path: Path, suffix: str) -> None:
    net, file = nn.Linear(3, 2), tmp_path / f"a{suffix}"
    if suffix == ".pt":
        torch.save(net.state_dict(), file)
    else:
        save_file(net.state_dict(), file)
    survives(lambda f: load_into(nn.Linear(3, 2), f), file.read_bytes(), file)


def test_damaged_states(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_state(file, {"x": torch.zeros(4)}, {"iteration": 3})
    survives(load_state, file.read_bytes(), file)


def test_damaged_generators(tmp_path: Path) -> None:
    recipe, file = GanRecipe(width=1, latent_dim=2), tmp_path / "generator.safetensors"
    network = recipe.generator(torch.ones(2), 32, 0)
    header = {"kind": KIND, "size": 32, "seed": 0, "recipe": {"width": 1, "latent_dim": 2}}
    save_state(file, network.state_dict(), {**header, "trained_on": {"counts": [1, 1]}})
    load_generator(file, device="cpu")
    whole = file.read_bytes()
    head = int.from_bytes(whole[:8], "little") + 8  # where the weights begin: any floats are weights

    def read(damaged: Path) -> None:
        damaged.write_bytes(damaged.read_bytes() + whole[head:])
        load_generator(damaged, device="cpu")

    survives(read, whole[:head], file, min(max(FUZZ // 4, 100), 10_000))


def test_damaged_tars(tmp_path: Path) -> None:
    tar = pack(tmp_path / "a.tar", write_tree(tmp_path / "data", *(f"{i}/a.png" for i in range(3))))
    plain = brightness_victim().transform

    def read(damaged: Path) -> None:
        images = open_images(damaged, plain, num_classes=3)
        for position in range(len(images)):
            images[position]

    assert survives(read, tar.read_bytes(), tar, max(FUZZ // 4, 100)) > 0


def test_damaged_options(tmp_path: Path) -> None:
    good = b"[evaluate]\nuaps = ['a']\nlimit = 3\nvictim = ['x', 'y']\noffline = true\n[craft.set]\nlr = 0.1\n"

    def read(damaged: Path) -> None:
        _values(evaluate_command, _table(damaged, ("evaluate",)), "c")

    assert survives(read, good, tmp_path / "c.toml") > FUZZ * 0.3


def test_damaged_labels(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", "a.png", "b.png")

    def read(damaged: Path) -> None:
        open_images(root, np.asarray, labels=damaged, num_classes=10)

    assert survives(read, b"file,label\na.png,3\nb.png,4\n", tmp_path / "labels.csv") > FUZZ * 0.1
