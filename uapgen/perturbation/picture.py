"""A pattern to look at: amplified, on images, and where it has its power (radial spectra in cycles per image)."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from .uap import Perturbation

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


LOW = 28  # cycles per image: periods of 8 pixels and more in 224


def power(delta: Tensor) -> tuple[Tensor, Tensor]:
    """Squared Fourier magnitudes of delta (3,H,W), summed over channels, and their radii in cycles per image, (H,W)."""
    h, w = delta.shape[-2:]
    squared = torch.fft.fft2(delta.double()).abs().square().sum(0)
    fy, fx = torch.fft.fftfreq(h, 1 / h, dtype=torch.float64), torch.fft.fftfreq(w, 1 / w, dtype=torch.float64)
    return squared, torch.hypot(fy.view(-1, 1), fx.view(1, -1))


def radial_spectrum(delta: Tensor) -> tuple[list[int], list[float]]:
    """Mean share of all power at a frequency of radius 1, 2, ... up to half the smaller side: (radii, shares).

    Radii are rounded to whole cycles per image. White noise is flat at 1 / (H W).
    """
    squared, radius = power(delta)
    rings = radius.round().long()
    total = torch.bincount(rings.flatten(), squared.flatten())
    counts = torch.bincount(rings.flatten())
    last = min(delta.shape[-2:]) // 2
    shares = total / counts.clamp_min(1) / squared.sum().clamp_min(1e-30)
    return list(range(1, last + 1)), shares[1 : last + 1].tolist()


def low_share(delta: Tensor, below: float = LOW) -> float:
    """The share in [0,1] of the power of delta (3,H,W) that lies below `below` cycles per image, the mean included."""
    squared, radius = power(delta)
    return float(squared[radius < below].sum() / squared.sum().clamp_min(1e-30))
