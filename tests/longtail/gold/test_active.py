"""Active learning: the order of queries, what is kept and what is new, and labels that nobody may see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from uapgen.errors import UapgenError, UsageError
from uapgen.gan.steps import UNLABELLED
from uapgen.longtail.gold import Active, GoldTraining, QueryPool, choose, learn, networks, top, unlabelled_gap
from uapgen.longtail.gold import active as module
from uapgen.longtail.gold.examples import Examples, as_floats, blobs, split_evenly
from uapgen.runtime import module_sha256, rng

NETS = networks("points", width=2, latent_dim=3)
SMALL = Active(init=2, query=2, images=64, rounds=2, validation=0)


def run(
    data: Examples, folder: Path, active: Active = SMALL, strategy: Any = "gold", **options: Any
) -> tuple[QueryPool, Any]:
    """The pool at the end and the generator's hash after each round."""
    first, _ = split_evenly(data, active.init, seed=0, key="init")
    pool, hashes = QueryPool(data, first), []
    settings: dict[str, Any] = {
        "validate": lambda turn, check, g: 0.0,
        "report": lambda turn, labels, g: hashes.append((labels, module_sha256(g))),
        "folder": folder,
        "about": {},
        "seed": 0,
        "device": torch.device("cpu"),
    }
    learn(pool, NETS, GoldTraining(images=1, batch=16), active, strategy, **(settings | options))
    return pool, hashes


def test_top_is_sorted_and_complete() -> None:
    scores = torch.randn(200, generator=rng(0))
    picked = top(scores, 20)
    assert scores[picked].tolist() == sorted(scores.tolist(), reverse=True)[:20]
    assert top(torch.tensor([1.0, 3.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize("balanced", [False, True])
def test_the_highest_gaps_of_the_pool_are_asked(balanced: bool) -> None:
    data, d = blobs(60), NETS.discriminator(2, 0)
    pool = QueryPool(data, torch.arange(10))
    asked = choose(pool, d, 5, "gold", balanced=balanced, seed=0, turn=0)
    scores = unlabelled_gap(d.judge(data.x[10:]), balanced=balanced)
    assert asked.tolist() == (10 + top(scores, 5)).tolist()
    others = torch.tensor([i for i in range(10, 60) if i not in asked.tolist()])
    assert scores[asked - 10].min() >= scores[others - 10].max()


def test_random_queries_depend_on_seed_and_turn() -> None:
    pool, d = QueryPool(blobs(60), torch.arange(10)), NETS.discriminator(2, 0)

    def take(seed: int, turn: int) -> list[int]:
        return choose(pool, d, 5, "random", balanced=False, seed=seed, turn=turn).tolist()

    assert take(0, 0) == take(0, 0)
    assert len({tuple(take(0, 0)), tuple(take(0, 1)), tuple(take(1, 0))}) == 3
    assert all(i >= 10 for i in take(0, 0))


def test_labels_of_the_pool_are_never_seen(tmp_path: Path) -> None:
    """Every label that was not asked for is replaced by a wrong one: not a byte changes."""
    data = blobs(40)
    pool, hashes = run(data, tmp_path / "clean")
    assert len(pool.labelled) == 6 and [labels for labels, _ in hashes] == [2, 4, 6]
    poisoned = 1 - data.labels
    poisoned[pool.labelled] = data.labels[pool.labelled]
    first, _ = split_evenly(data, 2, seed=0, key="init")
    other = QueryPool(dataclasses.replace(data, labels=poisoned), first)
    again: list[tuple[int, str]] = []
    learn(
        *(other, NETS, GoldTraining(images=1, batch=16), SMALL, "gold"),
        validate=lambda turn, check, g: 0.0,
        report=lambda turn, labels, g: again.append((labels, module_sha256(g))),
        folder=tmp_path / "poisoned",
        about={},
        seed=0,
        device=torch.device("cpu"),
    )
    assert again == hashes
    assert other.labelled.tolist() == pool.labelled.tolist()


def test_an_asked_label_does_count(tmp_path: Path) -> None:
    """The poison test can fail: one wrong label among those that were asked for changes the networks."""
    data = blobs(40)
    _, hashes = run(data, tmp_path / "clean")
    _, others = run(dataclasses.replace(data, labels=1 - data.labels), tmp_path / "wrong")
    assert others[0] != hashes[0]


def test_first_labels_are_even_over_classes() -> None:
    data = blobs(60)
    first, rest = split_evenly(data, 5, seed=3, key="init")
    assert data.labels[first].bincount().tolist() == [3, 2]
    assert sorted([*first.tolist(), *rest.tolist()]) == list(range(60))
    with pytest.raises(UsageError, match="ask for fewer"):
        split_evenly(data, 62, seed=0, key="init")


def test_a_batch_is_labelled_in_part_and_real_in_whole() -> None:
    data = blobs(60)
    pool = QueryPool(data, torch.tensor([3, 4]))
    x, labels = pool.batch(16, rng(0), 0.25)
    assert (labels != UNLABELLED).tolist() == [True] * 4 + [False] * 12
    known = {tuple(row) for row in data.x[[3, 4]].tolist()}
    assert {tuple(row) for row in x[:4].tolist()} <= known
    assert not {tuple(row) for row in x[4:].tolist()} & known
    pool.ask(torch.arange(60))
    assert (pool.batch(16, rng(0), 0.25)[1] != UNLABELLED).all()


def test_generator_is_kept_discriminator_and_optimisers_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, str]] = []
    train = module.train

    def spy(g: Any, d: Any, *args: Any, **options: Any) -> None:
        before = module_sha256(g), module_sha256(d)
        train(g, d, *args, **options)
        seen.append((*before, module_sha256(g)))

    monkeypatch.setattr(module, "train", spy)
    run(blobs(40), tmp_path)
    for turn in range(3):
        assert seen[turn][1] == module_sha256(NETS.discriminator(2, turn))
    assert [before for before, _, _ in seen[1:]] == [after for _, _, after in seen[:-1]]
    from uapgen.runfolder import load_state

    for turn in range(3):
        tensors, _ = load_state(tmp_path / f"round{turn}" / "gan.safetensors")
        assert tensors["opt_g.0.step"] == 4  # 64 images by 16: counted from the start of each round


def test_validation_keeps_a_copy_of_the_best(tmp_path: Path) -> None:
    """The first check is the best: what follows in its round must not change what is kept."""
    at_check: dict[tuple[int, int], str] = {}

    def validate(turn: int, check: int, g: Any) -> float:
        at_check[turn, check] = module_sha256(g)
        return 1.0 - check

    active = dataclasses.replace(SMALL, checks=2, validation=10)
    _, hashes = run(blobs(40), tmp_path / "run", active, validate=validate)
    assert [each for _, each in hashes] == [at_check[turn, 0] for turn in range(3)]
    assert at_check[0, 0] != at_check[0, 1]
    _, again = run(blobs(40), tmp_path / "run", active, validate=lambda turn, check, g: 1.0 - check)
    assert again == hashes  # a finished run is read, not repeated


def test_interrupted_and_continued_is_the_same(tmp_path: Path) -> None:
    _, hashes = run(blobs(40), tmp_path / "whole")

    def stop(turn: int, labels: int, g: Any) -> None:
        if turn == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(blobs(40), tmp_path / "run", report=stop)
    assert run(blobs(40), tmp_path / "run")[1] == hashes


def test_empty_pool_and_impossible_numbers(tmp_path: Path) -> None:
    d = NETS.discriminator(2, 0)
    for known, message in ((torch.arange(12), "0 examples are unlabelled"), (torch.arange(10), "2 examples")):
        with pytest.raises(UapgenError, match=f"{message}.*lower query"):
            choose(QueryPool(blobs(12), known), d, 3, "gold", balanced=False, seed=0, turn=0)
    wrong: list[dict[str, Any]] = [{"query": 0}, {"labelled_share": 0.0}, {"checks": 2}, {"fake_class": -1.0}]
    for change in wrong:
        with pytest.raises(UsageError):
            dataclasses.replace(SMALL, **change).check()


def test_windows_are_cut_out_of_images() -> None:
    x = torch.arange(35 * 35).remainder(251).byte().view(1, 1, 35, 35).expand(4, 3, 35, 35)
    data = Examples(x, torch.zeros(4, dtype=torch.long), 1, "ramp", window=32)
    cut, _ = data.batch(50, rng(0))
    assert cut.shape == (50, 3, 32, 32)
    source: Tensor = x[0, 0].float() / 255
    assert torch.equal(as_floats(data.centred().x)[0, 0], source[1:33, 1:33]) and data.centred().window is None
    allowed = {(t, left): source[t : t + 32, left : left + 32] for t in range(4) for left in range(4)}
    found = [next(k for k, v in allowed.items() if torch.equal(v, each[0])) for each in cut]
    assert len(set(found)) > 10
