"""Images that choose: held-out proxies among starts (no stage trained on them), and those of --stop-on on the way."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...proxies import ProxySource
from .run import Crafting


class StopOnImages:
    """Looks at the fooling rate on `n` fixed images of `run.stop_on` every `every` steps, and keeps the best delta.

    Ends after `patience` looks without an improvement: in a row, or in all when `cumulative` (TRM-UAP's and PSP-UAP's
    counter is never reset). Make one with `stop_on_images`, which gives None where the user named no images.
    """

    def __init__(
        self, run: Crafting, *, every: int, patience: int, cumulative: bool = False, n: int = 1000, batch: int = 50
    ) -> None:
        assert run.stop_on is not None
        self.run, self.every, self.patience, self.cumulative, self.batch = run, every, patience, cumulative, batch
        pictures = run.stop_on.batch(n, run.rng("stop-on"))
        self._images = (pictures * 255).round().to(torch.uint8)
        self._clean = self._predict(torch.zeros(1, *run.victim.input_size, device=run.victim.device))
        self._best: Tensor | None = None
        self._rate, self._misses, self._steps = -1.0, 0, 0

    def look(self, delta: Tensor) -> dict[str, Any]:
        """Counts a step; figures for the log where it was time to look."""
        self._steps += 1
        if self._steps % self.every:
            return {}
        rate = (self._predict(delta) != self._clean).float().mean().item()
        if rate > self._rate:
            self._best, self._rate = delta.clone(), rate
            self._misses = self._misses if self.cumulative else 0
        else:
            self._misses += 1
        return {"stop_on_rate": round(rate, 4)}

    def finished(self) -> bool:
        return self._misses >= self.patience

    def on_last_look(self) -> bool:
        """Whether one look more without an improvement ends the run."""
        return self._misses == self.patience - 1

    def best(self, last: Tensor) -> Tensor:
        """The best delta that was looked at, `last` if none was."""
        return last if self._best is None else self._best

    def _predict(self, delta: Tensor) -> Tensor:
        def classes(images: Tensor) -> Tensor:
            parts = ((part.float() / 255 + delta).clamp(0, 1) for part in images.split(self.batch))
            return torch.cat([self.run.victim(part).argmax(1) for part in parts])

        return self.run.look(classes, self._images)

    def tensors(self) -> dict[str, Tensor]:
        counters = torch.tensor([self._rate, self._misses, self._steps], dtype=torch.float64)
        return {"stop.counters": counters, **({"stop.best": self._best} if self._best is not None else {})}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self._rate, misses, steps = tensors.pop("stop.counters").tolist()
        self._misses, self._steps = int(misses), int(steps)
        self._best = tensors.pop("stop.best", None)


def stop_on_images(run: Crafting, *, every: int, patience: int, cumulative: bool = False) -> StopOnImages | None:
    """The rule for `optimise(..., stopping=...)`; None without --stop-on, and the whole budget is spent."""
    if run.stop_on is None:
        return None
    return StopOnImages(run, every=every, patience=patience, cumulative=cumulative)


class HeldOut:
    """Fixed proxy images with the victim's clean logits, computed once; `score(delta)` is higher for better patterns.

    The score is the mean KL(clean || perturbed) in nats at half the pattern's strength. At full strength nearly every
    proxy is fooled by nearly every candidate, and what is left is noise: on development images the fooling rate of
    proxies did not follow that of photographs, this score on 1/f noise did. In a targeted run it is the mean
    log-probability of the target there.
    """

    def __init__(self, run: Crafting, source: ProxySource, n: int, batch: int) -> None:
        self.run, self.source, self.batch = run, run.draw_from(source), batch
        self.images = self.source.batch(n, run.rng("held-out"))
        self.clean = self._log_probabilities(self.images)

    def _log_probabilities(self, images: Tensor) -> Tensor:
        return self.run.look(
            lambda x: torch.cat([F.log_softmax(self.run.victim(part), 1) for part in x.split(self.batch)]), images
        )

    def score(self, delta: Tensor) -> float:
        """For delta (1,3,H,W)."""
        perturbed = self._log_probabilities((self.images + 0.5 * delta).clamp(0, 1))
        if self.run.target is not None:
            return round(perturbed[:, self.run.target].mean().item(), 5)
        return round(F.kl_div(perturbed, self.clean, log_target=True, reduction="batchmean").item(), 5)
