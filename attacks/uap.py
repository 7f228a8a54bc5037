"""UAP: the first universal perturbation, a sum of DeepFool steps (Moosavi-Dezfooli et al., CVPR 2017)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..perturbation.ball import project
from .core.losses import predict
from .core.method import at_least, one_of, register, within
from .core.optimise import repeat
from .core.run import Crafting


class DeepFool:
    """foolbox's DeepFool on the victim, asked for one step at a time, so that images it has fooled cost nothing more.

    Counts every image-gradient: `cost` of them for a step of one image.
    """

    def __init__(self, run: Crafting, *, inner: str, candidates: int, overshoot: float, steps: int) -> None:
        # Here, because it takes a second to load, and no other method needs it.
        from foolbox import PyTorchModel
        from foolbox.attacks import L2DeepFoolAttack, LinfDeepFoolAttack

        self.run, self.steps, self.cost = run, steps, min(candidates, run.victim.num_classes) - 1
        kind = LinfDeepFoolAttack if inner == "linf" else L2DeepFoolAttack
        self._attack = kind(steps=1, candidates=candidates, overshoot=overshoot)
        self._model = PyTorchModel(_Counted(run).eval(), bounds=(0, 1), device=run.victim.device)

    def increments(self, images: Tensor, labels: Tensor) -> Tensor:
        """What takes each of `images` (B,3,H,W), in [0,1] and predicted as `labels` (B,), across its nearest boundary.

        Images that the rest of the budget cannot pay for stay where they are.
        """
        x, left = images.clone(), torch.arange(len(images), device=images.device)
        for _ in range(self.steps):
            left = left[: max(0, self.run.budget - self.run.cost.image_gradients) // self.cost]
            if not len(left):
                break
            x[left] = self._attack.run(self._model, x[left], labels[left])
            left = left[predict(self.run, x[left]) == labels[left]]
        return x - images


class _Counted(nn.Module):
    """The victim as foolbox sees it, which asks for the same images once for every candidate class.

    The forward pass of those images is done once and kept; every backward pass through it is counted.
    """

    def __init__(self, run: Crafting) -> None:
        super().__init__()
        self.run = run
        self.images, self.logits = torch.empty(0), torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.equal(x.detach(), self.images):
            with torch.enable_grad():
                self.images = x.detach().clone().requires_grad_(True)
                self.logits = self.run.victim(self.images)
        return _Kept.apply(x, self)


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: _Counted) -> Tensor:
        ctx.kept = kept
        return kept.logits.detach().clone()

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor, None]:
        kept = ctx.kept
        found = torch.autograd.grad(kept.logits, kept.images, towards[0], retain_graph=True)
        return kept.run.victim.summed(found)[0], None


class _Passes:
    """Delta, and how far the current pass over the training images has come."""

    def __init__(self, delta: Tensor) -> None:
        self.delta = delta
        self.number, self.position, self.seen, self.fooled, self.rate = 0, 0, 0, 0, 0.0

    def tensors(self) -> dict[str, Tensor]:
        counters = [self.number, self.position, self.seen, self.fooled, self.rate]
        return {"delta": self.delta, "counters": torch.tensor(counters, dtype=torch.float64)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.delta = tensors["delta"]
        *counts, self.rate = tensors["counters"].tolist()
        self.number, self.position, self.seen, self.fooled = (int(count) for count in counts)

    def count(self, fooled: int, seen: int, batches: int) -> None:
        self.position, self.seen, self.fooled = self.position + 1, self.seen + seen, self.fooled + fooled
        if self.position == batches:
            self.rate = self.fooled / self.seen
            self.number, self.position, self.seen, self.fooled = self.number + 1, 0, 0, 0


@register("uap", paper="Moosavi-Dezfooli et al., CVPR 2017", year=2017, images="driven", norms=("linf", "l2"))
def uap(
    run: Crafting,
    *,
    images: Annotated[int, at_least(1, at_most=100_000_000), "training images, a fifth of the budget at most"] = 10_000,
    batch: Annotated[int, at_least(1, at_most=10_000), "images whose increments are computed together"] = 4,
    delta: Annotated[float, within(0, 1, high_open=True), "ends when the share 1 - delta is fooled"] = 0.2,
    inner: Annotated[str, one_of("l2", "linf"), "norm in which DeepFool measures distance"] = "l2",
    candidates: Annotated[int, at_least(2, at_most=1_000_000), "classes that DeepFool weighs"] = 10,
    overshoot: Annotated[float, at_least(0, at_most=100), "how far beyond the boundary, as a share"] = 0.02,
    steps: Annotated[int, at_least(1, at_most=1000), "DeepFool steps an image, at most"] = 10,
    passes: Annotated[int | None, at_least(1), "passes over the images, at most; none: as the budget allows"] = None,
) -> Tensor:
    """Walks through the training images and adds, for each not yet fooled, the DeepFool step that takes it across.

    The increments of a minibatch of `batch` images are computed together, for the pattern at its start; each is added
    only if its image is still not fooled then, and delta is projected each time: the paper's loop with a slightly
    stale start. Ends when the share 1 - `delta` of the training images is fooled, counted as they come by, after
    `passes` over them if that is given, or with the budget. DeepFool measures distance in the norm `inner`, whatever
    ball delta is in, as the paper does (l2; or linf), weighs `candidates` classes, overshoots by the share `overshoot`
    and takes up to `steps` steps of candidates - 1 image-gradients an image; as foolbox asks, x + delta is clipped to
    [0,1]. The paper passes some five times over `images` images; here there are at most a fifth
    of the budget, so that there is a second pass.
    """
    assert run.source is not None
    source = run.source
    deepfool = DeepFool(run, inner=inner, candidates=candidates, overshoot=overshoot, steps=steps)
    batches = max(1, min(images, run.budget // 5) // batch)
    state = _Passes(torch.zeros(1, *run.victim.input_size, device=run.victim.device))

    def advance(_: torch.Generator) -> dict[str, Any]:
        order = torch.randperm(batches, generator=run.rng("uap-order", state.number))
        x = source.batch(batch, run.rng("uap-images", int(order[state.position])))
        labels = predict(run, x)
        start = (x + state.delta).clamp(0, 1)
        held = predict(run, start) == labels
        moves = deepfool.increments(start[held], labels[held])
        state.delta = _add(run, state.delta, x[held], labels[held], moves)
        run.snapshot(state.delta)
        fooled = batch - int(held.sum())
        state.count(fooled, batch, batches)
        return {"fooled": round(fooled / batch, 4), "pass": state.number}

    def finished() -> bool:
        left = run.budget - run.cost.image_gradients
        return state.rate >= 1 - delta or state.number == passes or left < deepfool.cost

    repeat(run, "uap", state, advance, run.budget, finished)
    if state.rate >= 1 - delta:
        run.stopped = "training images fooled"
    elif state.number == passes:
        run.stopped = "passes"
    return state.delta


def _add(run: Crafting, delta: Tensor, images: Tensor, labels: Tensor, moves: Tensor) -> Tensor:
    """`delta` after each of `moves` (B,3,H,W) was added in turn, where its image was still not fooled.

    Looks ahead: one forward pass checks several images, which holds until one of them changes delta.
    """
    at, window = 0, 1
    while at < len(images):
        ahead = slice(at, at + window)
        held = (predict(run, (images[ahead] + delta).clamp(0, 1)) == labels[ahead]).nonzero()
        if len(held):
            at += int(held[0])
            delta, window = project(delta + run.tied(moves[at : at + 1]), run.eps, run.norm), 1
            at += 1
        else:
            at, window = at + window, 2 * window
    return delta
