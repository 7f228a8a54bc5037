"""AAA: ask, acquire and attack (Mopuri et al., ECCV 2018)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from .core.impressions import ImpressionSettings, class_impressions
from .core.layerwise import need_layers
from .core.method import at_least, register, within
from .core.run import Crafting
from .core.selection import HeldOut
from .nag import NagSettings, train_nag


@register("aaa", paper="Mopuri et al., ECCV 2018", year=2018, targeted=True, check=need_layers)
def aaa(
    run: Crafting,
    *,
    share: Annotated[float, within(0, 1, low_open=True, high_open=True), "share of the budget for impressions"] = 0.4,
    impressions: Annotated[int, at_least(1, at_most=100_000), "impressions, at most"] = 1000,
    slots: Annotated[int, at_least(2, at_most=1024), "images that climb at a time"] = 16,
    climb_steps: Annotated[int, at_least(1, at_most=100_000), "steps after which an image is given up"] = 200,
    training: NagSettings,
    held_out: Annotated[float, within(0, 1, high_open=True), "share of impressions set aside to choose on"] = 0.125,
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
    held, rest = made.split(min(max(1, round(held_out * len(made))), len(made) - 1))
    run.draw_from(made, made_of=(run.source, held, rest))
    left = run.budget - run.cost.image_gradients
    return train_nag(run, run.draw_from(rest), HeldOut(run, held, len(held), training.batch), training, left)
