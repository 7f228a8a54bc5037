"""Active learning: which unlabelled real images to ask labels for, so that the next GAN gains most.

Mo et al., 2019, section 3.2: those with the highest gap of log-densities, Eq. (8) and (9), among all of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import UapgenError, UsageError
from ...gan.conditional import DiscriminatorNetwork, GeneratorNetwork, Judgement
from ...gan.gold import top, unlabelled_gap
from ...gan.steps import UNLABELLED
from ...runfolder import load_state, save_state
from ...runtime import rng
from .examples import Examples, as_floats
from .networks import Networks
from .training import GoldTraining, train

Strategy = Literal["gold", "random"]
Validate = Callable[[int, int, GeneratorNetwork], float]
Report = Callable[[int, int, GeneratorNetwork], None]


@dataclass(frozen=True)
class Active:
    """Labels are asked for `init` examples, even over the classes, and `query` more after each of `rounds` trainings.

    images: of each training. checks: how often validation chooses among its states; 1 takes the last. validation: how
    many labelled examples that may read. fake_class: lambda_c here. labelled_share: of the real images of a batch.
    balanced: Eq. (9) instead of (8); the paper's choice for points.
    """

    init: int
    query: int
    images: int
    rounds: int = 4
    checks: int = 1
    validation: int = 100
    fake_class: float = 0.01
    labelled_share: float = 0.25
    balanced: bool = False

    @property
    def labels(self) -> int:
        """How many are asked for in all."""
        return self.init + self.rounds * self.query

    def check(self) -> None:
        """Raises UsageError when the numbers make no experiment."""
        if min(self.init, self.query, self.images, self.checks) < 1 or min(self.rounds, self.validation) < 0:
            raise UsageError(f"active learning with {self}; expected positive numbers")
        if not 0 < self.labelled_share <= 1 or self.fake_class < 0:
            raise UsageError(f"labelled_share {self.labelled_share} is outside (0,1], or fake_class is negative")
        if self.checks > 1 and not self.validation:
            raise UsageError(f"{self.checks} checks need a validation set; give validation, e.g. 100")


class QueryPool:
    """Examples whose labels are hidden until they are asked for. `labels` (N,) holds UNLABELLED in all other places."""

    def __init__(self, data: Examples, first: Tensor) -> None:
        self.x, self.num_classes = data.x, data.num_classes
        self.labels = torch.full_like(data.labels, UNLABELLED)
        self._data = data
        self.ask(first)

    def ask(self, indices: Tensor) -> None:
        """Shows the labels of `indices`."""
        indices = indices.to(self.labels.device)
        self.labels[indices] = self._data.labels[indices]

    @property
    def labelled(self) -> Tensor:
        """Indices, ascending."""
        return (self.labels != UNLABELLED).nonzero().flatten()

    @property
    def unlabelled(self) -> Tensor:
        """Indices, ascending."""
        return (self.labels == UNLABELLED).nonzero().flatten()

    def batch(self, n: int, draws: torch.Generator, labelled_share: float) -> tuple[Tensor, Tensor]:
        """n examples as floats, that share of them (at least one) labelled; the others are real, and of no class."""
        known, unknown = self.labelled, self.unlabelled
        count = max(1, round(labelled_share * n)) if len(unknown) else n
        parts = []
        for indices, size in ((known, count), (unknown, n - count)):
            if size:
                parts.append(indices[torch.randint(len(indices), (size,), generator=draws).to(indices.device)])
        pick = torch.cat(parts)
        return self._data.floats(pick, draws), self.labels[pick]


@torch.no_grad()
def choose(
    pool: QueryPool,
    discriminator: DiscriminatorNetwork,
    k: int,
    strategy: Strategy,
    *,
    balanced: bool,
    seed: int,
    turn: int,
) -> Tensor:
    """Indices (k,) of the unlabelled examples to ask next. Raises UapgenError when the pool has fewer than k."""
    left = pool.unlabelled
    if not len(left) or len(left) < k:
        raise UapgenError(f"{len(left)} examples are unlabelled, {k} are to be asked; lower query, rounds or init")
    if strategy == "random":
        return left[torch.randperm(len(left), generator=rng(seed, "gold-random", turn))[:k].to(left.device)]
    discriminator.eval()
    judged = [discriminator.judge(as_floats(pool.x[part])) for part in left.split(1000)]
    logits, classes = (torch.cat([part[i] for part in judged]) for i in (0, 1))  # type: ignore[misc]
    return left[top(unlabelled_gap(Judgement(logits, classes), balanced=balanced), k)]


def learn(
    pool: QueryPool,
    networks: Networks,
    training: GoldTraining,
    active: Active,
    strategy: Strategy,
    *,
    validate: Validate,
    report: Report,
    folder: Path,
    about: dict[str, Any],
    seed: int,
    device: torch.device,
) -> None:
    """rounds + 1 trainings, with a query between two. Each has a new discriminator and new optimisers, and goes on
    with the generator of the last one.

    validate: `validate(round, check, generator)` -> the higher, the better; called when there is more than one check,
    and expected to remember. report: `report(round, labelled, generator)` after each training.
    """
    active.check()
    generator = networks.generator(pool.num_classes, seed)
    for turn in range(active.rounds + 1):
        discriminator = networks.discriminator(pool.num_classes, 1000 * seed + turn)
        best = Best(folder / f"round{turn}" / "best.safetensors")
        for check in range(active.checks):
            train(
                generator,
                discriminator,
                lambda n, draws: pool.batch(n, draws, active.labelled_share),
                training.settings(fake_class=active.fake_class),
                folder=folder / f"round{turn}",
                about={**about, "strategy": strategy, "turn": turn},
                images=(check + 1) * active.images // active.checks,
                seed=seed,
                device=device,
            )
            if active.checks > 1:
                best.offer(validate(turn, check, generator), generator, discriminator)
        if active.checks > 1:
            best.restore(generator, discriminator)
        report(turn, len(pool.labelled), generator)
        if turn < active.rounds:
            pool.ask(
                choose(pool, discriminator, active.query, strategy, balanced=active.balanced, seed=seed, turn=turn)
            )


class Best:
    """The best state of a pair of networks so far, in a file: a copy, so that further training does not change it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def offer(self, score: float, generator: GeneratorNetwork, discriminator: DiscriminatorNetwork) -> None:
        """Keeps the networks if `score` is above all before; a score that was offered before changes nothing."""
        if not self.file.is_file() or score > load_state(self.file)[1]["score"]:
            parts = {"g": generator, "d": discriminator}
            tensors = {f"{name}.{key}": t for name, part in parts.items() for key, t in part.state_dict().items()}
            save_state(self.file, tensors, {"score": score})

    def restore(self, generator: GeneratorNetwork, discriminator: DiscriminatorNetwork) -> None:
        tensors, _ = load_state(self.file)
        for name, part in (("g.", generator), ("d.", discriminator)):
            part.load_state_dict({key[2:]: tensor for key, tensor in tensors.items() if key.startswith(name)})
