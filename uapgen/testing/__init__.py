"""Robustness in a test suite.

```python
from uapgen.testing import assert_robust

def test_model_is_robust():
    assert_robust(build_model(), eps=8 / 255, max_fooling_rate=0.4, images="tests/images", uaps=["uap.safetensors"])
```

Under pytest the fixture `assert_robust` (see `uapgen.testing.plugin`) does the same, keeps crafted patterns in pytest's
cache and writes the rates into the JUnit report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from ..evaluation import Evaluation
    from ..perturbation import Perturbation
    from ..victims import Preprocessing, Victim

__all__ = ["assert_robust"]

DEFAULT_EPS = 10 / 255


def assert_robust(
    model: Victim | nn.Module | str,
    *,
    max_fooling_rate: float,
    images: Any,
    eps: float = DEFAULT_EPS,
    uaps: Sequence[Perturbation | str | Path] = (),
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    device: str = "auto",
    folder: str | Path | None = None,
    on_inconclusive: str = "fail",
    record: Callable[[str, object], None] | None = None,
    **crafting: Any,
) -> Evaluation:
    """Fails with AssertionError unless the upper 95% Wilson bound of every fooling rate is at most `max_fooling_rate`.

    `model` is a Victim, a spec such as "timm/resnet50.tv_in1k", or an nn.Module with its `preprocessing` (mean, std,
    input size); a module is copied, not changed. `images` are what `uapgen.open_images` takes: a folder, "foolbox", a
    tensor (N,3,H,W), float in [0,1] or uint8, a pair (images, labels), a Dataset, a DataLoader. `eps` is in [0,1] pixel
    units.

    Measured are the perturbations `uaps` (objects or files, all within `eps`), or else one that is crafted here and
    kept in `folder`, if one is given, for the next time. `crafting` is what `uapgen.craft` takes for it: `method`,
    `budget`, `seed` and the method's own parameters; by default cbgan, quick and 0. A rate whose interval straddles the
    limit fails too, unless `on_inconclusive` is "pass"; more images narrow it. `record(name, value)` gets the numbers.

    Returns the evaluation. Raises UsageError and UapgenError for what is no test result: arguments, files, weights.
    """
    from .measure import measure

    if not 0 <= max_fooling_rate <= 1:
        raise UsageError(f"max_fooling_rate={max_fooling_rate} is no share; expected 0..1, such as 0.4")
    if on_inconclusive not in ("fail", "pass"):
        raise UsageError(f"on_inconclusive={on_inconclusive!r}; expected 'fail' or 'pass'")
    found, craft = measure(
        model,
        images,
        uaps,
        eps=eps,
        crafting={"method": "cbgan", "budget": "quick", "seed": 0, **crafting},
        preprocessing=preprocessing,
        limit=limit,
        device=device,
        folder=folder,
    )
    lines = []
    for row in found.rows:
        floor = found.floor(row)
        text = (
            f"{row.method} fools {row.fooling_rate}% of {row.n} images (random floor {floor and floor.fooling_rate}%)"
        )
        low, high = row.fooling_rate.ci95
        if record is not None:
            record(f"fooling_rate[{row.method}]", f"{row.fooling_rate}")
        if low > max_fooling_rate:
            lines.append(f"{text}: above the limit of {100 * max_fooling_rate:.4g}%")
        elif high > max_fooling_rate and on_inconclusive != "pass":
            lines.append(f"{text}: the interval straddles the limit of {100 * max_fooling_rate:.4g}%; give more images")
    if lines:
        raise AssertionError(
            f"{found.victim.name} is not robust at {255 * eps:.4g}/255 ({craft}):\n" + "\n".join(lines)
        )
    return found
