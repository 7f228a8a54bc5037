"""uapgen detect: do these images carry one common pattern?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .options import say

if TYPE_CHECKING:
    from torch import Tensor

    from ..detect import Detection

FAILED, INCONCLUSIVE = 1, 4


@click.command("detect")
@click.argument("data", metavar="DIR|TAR")
@click.option("--reference", metavar="DIR|TAR", help="Other, clean images of the same kind and size.")
@click.option("--alpha", type=float, default=0.01, show_default=True, help="False-alarm rate, from 0.0001 to 0.5.")
@click.option("--size", type=click.IntRange(min=16), metavar="N", help="Bring all images to N x N pixels first.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Take at most N images of each folder, evenly spread; more show weaker patterns and take memory.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws of the tests.")
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False), metavar="F.png", help="Draw the mean residual."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--fail", is_flag=True, help="Exit with 1 when a pattern is detected, with 4 when images are too few.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads for torch.")
@click.pass_context
def command(
    ctx: click.Context,
    data: str,
    reference: str | None,
    alpha: float,
    size: int | None,
    limit: int,
    seed: int,
    picture: Path | None,
    as_json: bool,
    fail: bool,
    threads: int | None,
) -> None:
    """Do the images in DIR (a folder, a tar, or 'foolbox') carry one common additive pattern, as a UAP is?

    Two tests: of the mean over images of what a blur takes away, and of the phases of their spectra. Among streams of
    images without a common pattern, at most a share --alpha is called detected (Holm's correction for two tests).

    Without --reference this holds for independent images of a kind that is as likely as its mirror image: photographs.
    Text, digits, radiographs and frames of a fixed camera are not, and have common structure of their own: give
    --reference DIR with clean ones (others, not the same pictures); what both have in common then counts for nothing.
    A logo or a frame at the same place is a common pattern too. One that is its own mirror image is only found with a
    reference; one that is moved, turned or mirrored from image to image, not at all.

    Patterns fit images pixel by pixel: all must have one size. Where a pattern was fitted to each image's own size
    ('uapgen apply --resize'), --size brings them together again.

    Exits with 0 whatever is found; with --fail 1 for detected and 4 for inconclusive (too few images for alpha).

    \b
    uapgen detect uploads/ --alpha 0.001 --picture mean.png
    uapgen detect uploads/ --reference clean/ --json
    uapgen detect foolbox --size 224 --fail
    """
    if not 1e-4 <= alpha <= 0.5:
        raise UsageError(f"--alpha {alpha:g} is outside [0.0001, 0.5]; expected such as 0.01")
    from ..detect import detect
    from ..runtime import ensure_writable, start_process

    start_process(threads)
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise UsageError(f"--picture {picture} should end in .png")
        ensure_writable(picture)
    found = detect(
        _read(data, size, limit), _read(reference, size, limit) if reference else None, alpha=alpha, seed=seed
    )
    if picture is not None:
        _draw(found.mean, picture)
    click.echo(_json(found, data, reference) if as_json else _text(found))
    if fail:
        ctx.exit({"detected": FAILED, "inconclusive": INCONCLUSIVE}.get(found.verdict, 0))


def _read(data: str, size: int | None, limit: int) -> Tensor:
    """The images (N,3,H,W) uint8; those that cannot be read are named and left out."""
    import torch
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    from ..images.sets import open_images

    def transform(image: Image.Image) -> Tensor:
        return pil_to_tensor(image.resize((size, size), Image.Resampling.BILINEAR) if size else image)

    images = open_images(data, transform, limit=limit)
    items = [images[position] for position in range(len(images))]
    corrupt = [(position, item) for position, item in items if isinstance(item, str)]
    images.check_corrupt(corrupt)
    for position, reason in corrupt:
        say(f"warning: {images.names[position]} cannot be read ({reason}) and is left out")
    read = [(images.names[position], item) for position, item in items if not isinstance(item, str)]
    first = read[0][1]
    for name, item in read:
        if item.shape != first.shape:
            (h, w), (other_h, other_w) = first.shape[-2:], item.shape[-2:]
            raise UsageError(
                f"images in {data} differ in size: {read[0][0]} is {w}x{h}, {name} is {other_w}x{other_h}; a common "
                "pattern needs one size: give --size N where it was fitted to each image, or sort the images by size"
            )
    return torch.stack([item for _, item in read])


def _text(found: Detection) -> str:
    against = f" against {found.n_reference} of the reference" if found.n_reference else ""
    lines = [f"{found.n} images{against}, {found.rounds} random draws a test"]
    if found.blank:
        lines.append(f"{found.blank} of them are of one colour and say nothing")
    for test in found.tests:
        parts = ", ".join(f"{key} {p:.4f}" for key, p in test.p_values.items())
        lines.append(f"{test.name:<14} p = {test.p:.4f} ({parts}), corrected {test.adjusted:.4f}")
    lines.append(f"common residual: about {found.rms:.2f} levels of 255 or more (root mean square)")
    reasons = {
        "detected": f"one common pattern (a false alarm at most once in {1 / found.alpha:.4g} clean streams)",
        "not detected": f"no common pattern shows at alpha {found.alpha:g}, which is not proof that there is none",
        "inconclusive": f"too few images for alpha {found.alpha:g}; give more, or a larger --alpha",
    }
    return "\n".join([*lines, f"{found.verdict}: {reasons[found.verdict]}"])


def _json(found: Detection, data: str, reference: str | None) -> str:
    import json

    result: dict[str, Any] = {
        "data": data,
        "reference": reference,
        "verdict": found.verdict,
        "alpha": found.alpha,
        "rounds": found.rounds,
        "images": found.n,
        "reference_images": found.n_reference,
        "one_colour": found.blank,
        "common_rms_255": found.rms,
        "tests": [{"name": t.name, "p": t.p, "adjusted": t.adjusted, "p_values": t.p_values} for t in found.tests],
    }
    return json.dumps(result, indent=1)


def _draw(mean: Tensor, path: Path) -> None:
    """The mean residual around mid-grey, amplified until its 99th percentile fills the range."""
    from PIL import Image

    from ..runtime import atomic_write

    level = float(mean.abs().flatten().sort().values[int(0.99 * (mean.numel() - 1))])
    gain = 0.5 / max(level, 1e-6)
    shown = (127.5 + 255 * gain * mean).round().clamp(0, 255).byte()
    with atomic_write(path) as temporary:
        Image.fromarray(shown.movedim(0, -1).numpy()).save(temporary, format="PNG")
    say(f"wrote {path} (the mean residual, amplified x{gain:.3g}; not the pattern itself)")
