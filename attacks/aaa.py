"""AAA: ask, acquire and attack (Mopuri et al., ECCV 2018)."""

from __future__ import annotations

from torch import Tensor

from .core.generators import shrunk
from .core.held_out import HeldOut
from .core.impressions import ImpressionSettings, class_impressions
from .core.method import register
from .core.run import Crafting
from .nag import train_nag


@register("aaa", paper="Mopuri et al., ECCV 2018", year=2018, targeted=True)
def aaa(
    run: Crafting,
    *,
    share: float = 0.4,
    impressions: int = 1000,
    slots: int = 16,
    climb_steps: int = 200,
    batch: int = 32,
    min_steps: int = 300,
    lr: float = 3e-3,
    latent: int = 10,
    width: int = 16,
    diversity: float = 1.0,
    layer: float = 0.75,
    candidates: int = 8,
    held_out: float = 0.125,
) -> Tensor:
    """Asks the victim for images of its classes, then trains NAG's generator on them; sees no image.

    Impressions take up to `share` of the budget and are of random classes, at most `impressions` of them: their
    image-gradients count like all others, and the paper's 10 for each of 1000 classes would take many budgets. `slots`
    images climb at a time, each for `climb_steps` steps at most. The generator takes the rest; its parameters are
    NAG's. The paper's Adam runs at 2e-4 for many more steps; `lr` is NAG's. The pattern is chosen on
    the share `held_out` of the impressions, which the generator never meets. With --proxy the impressions start from
    its images.
    """
    settings = ImpressionSettings(slots=slots, steps=climb_steps, most=impressions)
    made = class_impressions(run, settings, images=int(share * run.budget), start=run.source)
    held, rest = made.split(max(1, round(held_out * len(made))))
    run.draw_from(made, made_of=(run.source, held, rest))
    left = run.budget - run.cost.image_gradients
    return train_nag(
        run,
        run.draw_from(rest),
        HeldOut(run, held, len(held), batch),
        images=left,
        batch=shrunk(batch, left, min_steps),
        lr=lr,
        latent=latent,
        width=width,
        diversity=diversity,
        layer=layer,
        candidates=candidates,
    )
