"""Pictures of a perturbation, for people to look at; a strip below says that they are not the perturbation."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from .perturbation import Perturbation

MIN_SIDE = 224
GAP, LINE = 4, 14
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def amplification(perturbation: Perturbation) -> float:
    """The factor that makes delta's bound fill the 8-bit range around mid-grey: 1 / (2 eps); its own maximum for l2."""
    bound = perturbation.eps if perturbation.norm == "linf" else float(perturbation.delta.abs().max())
    return 0.5 / max(bound, 1e-6)


def pattern(perturbation: Perturbation) -> Tensor:
    """uint8 (3,H,W): 127.5 + 127.5 * delta / eps, rounded."""
    amplified = 127.5 + 255 * amplification(perturbation) * perturbation.delta
    return amplified.round().clamp(0, 255).to(torch.uint8)


def draw(perturbation: Perturbation, images: Tensor | None = None) -> Image.Image:
    """The amplified pattern over a strip that names it a picture; with `images`, rows of pattern | clean | perturbed.

    `images` (B,3,H,W) are uint8 or float in [0,1]; delta is resized to theirs if sizes differ. Small ones are enlarged
    by whole factors.
    """
    notes = [f"picture only, amplified x{amplification(perturbation):.4g},", "not the perturbation"]
    if images is None:
        return _captioned([[pattern(perturbation)]], [notes])
    clean = images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).to(torch.uint8)
    fitted = perturbation.resized((clean.shape[-2], clean.shape[-1]))
    adversarial = fitted.apply(clean)
    rows = [[pattern(fitted), before, after] for before, after in zip(clean, adversarial, strict=True)]
    return _captioned(rows, [notes, ["clean"], [f"clean + delta, {fitted.norm} {fitted.eps * 255:.4g}/255"]])


def _captioned(rows: list[list[Tensor]], captions: list[list[str]]) -> Image.Image:
    h, w = rows[0][0].shape[-2:]
    factor = -(-MIN_SIDE // min(h, w))
    h, w = h * factor, w * factor
    columns = len(captions)
    size = (columns * w + (columns - 1) * GAP, len(rows) * (h + GAP) + LINE * max(map(len, captions)) + GAP)
    sheet = Image.new("RGB", size, WHITE)
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            enlarged = functional.interpolate(cell[None].float(), scale_factor=factor)[0].to(torch.uint8)
            sheet.paste(Image.fromarray(enlarged.movedim(0, -1).numpy()), (column * (w + GAP), row * (h + GAP)))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, lines in enumerate(captions):
        for number, line in enumerate(lines):
            pen.text((column * (w + GAP) + 2, len(rows) * (h + GAP) + number * LINE), line, fill=BLACK, font=font)
    return sheet
