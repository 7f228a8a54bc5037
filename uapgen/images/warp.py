"""Images moved, turned, cut, recoloured: the random changes that losses, class impressions and training draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UsageError
from ..runtime import uniform

if TYPE_CHECKING:
    from ..victims import Victim

ANGLES = (-10.0, -7.0, -5.0, -3.0, 3.0, 5.0, 7.0, 10.0)  # degrees
WIDTHS = (3, 5, 7, 9)  # of the blur, in pixels

Transform = Callable[[Tensor], Tensor]


def affine(x: Tensor, theta: Tensor, padding: str) -> tuple[Tensor, Tensor]:
    """x (n,C,H,W) by bilinear sampling where `theta` (n,2,3) says, and the places (n,H,W,2) it sampled, -1..1 inside.

    `theta` takes a place of the result to one of x, in units of half a side; `padding` is grid_sample's.
    """
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=False), grid


def turn(
    cos: Tensor, sin: Tensor, size: Sequence[int], *, shift: Tensor | None = None, flip: Tensor | None = None
) -> Tensor:
    """`affine`'s theta (n,2,3) of turns by `cos` and `sin` (n,), a scale included, for images of `size` (H,W).

    `shift` (n,2,1) is added, in half sides; `flip` (n,) of -1 mirrors left and right before the turn.
    """
    h, w = size
    x = [cos, sin] if flip is None else [flip * cos, flip * sin]
    matrix = torch.stack([torch.stack([x[0], -sin * h / w], 1), torch.stack([x[1] * w / h, cos], 1)], 1)
    return torch.cat([matrix, torch.zeros(len(cos), 2, 1).to(matrix) if shift is None else shift], 2)


def random_transform(victim: Victim, n: int, intensity: float, generator: torch.Generator) -> Transform:
    """One of PSP-UAP's three transforms of victim inputs (n,3,H,W), with a draw of its own for each image."""
    kind = int(torch.randint(0, 3, (1,), generator=generator))
    if kind == 0:
        angle = torch.nn.init.trunc_normal_(torch.empty(n), 0.0, 6.0, -6.0, 6.0, generator=generator)
        return lambda x: rotated(x, angle)
    if kind == 1:
        factor = uniform(0.8, intensity, (n, 1, 1, 1), generator).to(victim.device)
        return lambda x: brightened(victim, x, factor)
    return random_shuffle(victim.input_size, generator)


def random_shuffle(size: tuple[int, int, int], generator: torch.Generator) -> Transform:
    """`shuffled` with one draw of cuts and swaps, for images (n,*size)."""
    _, h, w = size
    cuts = [int(torch.randint(1, side, (1,), generator=generator)) for side in (h, w, w)]
    swaps = torch.randint(0, 2, (3,), generator=generator).tolist()
    return lambda x: shuffled(x, cuts, swaps)


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """x (n,C,H,W), image i turned by degrees[i]; corners that the turn leaves empty keep the unturned pixels."""
    angle = degrees * math.pi / 180
    turned, grid = affine(x, turn(angle.cos(), angle.sin(), x.shape[-2:]), "border")
    return torch.where((grid.abs().amax(-1) <= 1).unsqueeze(1), turned, x)


def brightened(victim: Victim, x: Tensor, factor: Tensor) -> Tensor:
    """x (n,3,H,W) with what the network sees of it multiplied by factor (n,1,1,1)."""
    return victim.mean + factor * (x - victim.mean)


def shuffled(x: Tensor, cuts: Sequence[int], swaps: Sequence[int]) -> Tensor:
    """x (n,C,H,W) cut into two bands of rows at cuts[0], and these into two blocks each at cuts[1] and cuts[2].

    swaps[0] exchanges the bands, swaps[1] and swaps[2] the blocks within the upper and the lower one.
    """
    upper, lower = x[:, :, : cuts[0]], x[:, :, cuts[0] :]
    bands = [band.roll(-cut * swap, 3) for band, cut, swap in zip((upper, lower), cuts[1:], swaps[1:], strict=True)]
    return torch.cat(bands[::-1] if swaps[0] else bands, 2)


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Shake:
    """Rotates, scales, shifts (edges mirrored), recolours images and gives them noise, each image its own way.

    The ranges are those of AAA's public code (Mopuri et al., ECCV 2018), each way from none, in pixel units.
    """

    rotation: float = 5.0  # degrees
    scale: float = 0.05
    shift: float = 16 / 224  # of the side: the crop of a padded image
    jitter: float = 16 / 255  # per image and channel
    noise: float = 10 / 255  # per pixel

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(B,C,H,W) of images (B,C,H,W), not clipped; differentiable."""
        b = len(x)
        angle = uniform(-self.rotation, self.rotation, (b,), generator) * math.pi / 180
        zoom = 1 + uniform(-self.scale, self.scale, (b,), generator)
        shift = 2 * uniform(-self.shift, self.shift, (b, 2, 1), generator)
        theta = turn(angle.cos() * zoom, angle.sin() * zoom, x.shape[-2:], shift=shift)
        moved, _ = affine(x, theta, "reflection")
        colour = uniform(-self.jitter, self.jitter, (b, x.shape[1], 1, 1), generator)
        return moved + (colour + uniform(-self.noise, self.noise, tuple(x.shape), generator)).to(x)


def random_resized_crops(
    images: Tensor,
    n: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """n crops (n,C,H,W) of `images` (B,C,H,W), each resized to the whole frame by bilinear sampling.

    Crop i is of image i mod B; `scale` is the range of its share of the area, `ratio` the log-uniform range of its
    aspect. Crops stay inside the image: a side that would not fit is cut to the frame. Differentiable in `images`.
    """
    if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
        raise UsageError(f"crops need 0 < scale <= 1 and ratio > 0, in order; got scale={scale}, ratio={ratio}")
    h, w = images.shape[-2:]
    area = uniform(*scale, (n,), generator)
    aspect = uniform(math.log(ratio[0]), math.log(ratio[1]), (n,), generator).exp()
    half = torch.stack([(area * aspect * h / w).sqrt(), (area / aspect * w / h).sqrt()], 1).clamp_max(1)
    centre = (2 * torch.rand((n, 2), generator=generator) - 1) * (1 - half)
    theta = torch.cat([torch.diag_embed(half), centre.unsqueeze(-1)], -1)
    pick = torch.arange(n, device=images.device) % len(images)
    return affine(images[pick], theta, "border")[0]


class Crops(NamedTuple):
    """For each of B images the corner of its crop, `top` and `left` (B,1) in 0..2 pad, and `mirrored` (B,1) bool."""

    top: Tensor
    left: Tensor
    mirrored: Tensor

    def part(self, start: int, stop: int) -> Crops:
        return Crops(*(each[start:stop] for each in self))


def draw_crops(n: int, generator: torch.Generator, *, pad: int, flip: bool, device: torch.device | str) -> Crops:
    """Uniform corners; half of the images mirrored if `flip`. Drawn where the generator lives, for a whole epoch."""

    def draw(high: int) -> Tensor:
        return torch.randint(0, high, (n, 1), generator=generator, device=generator.device).to(device)

    return Crops(draw(2 * pad + 1), draw(2 * pad + 1), draw(2).bool() & flip)


def crop(images: Tensor, crops: Crops, *, pad: int) -> Tensor:
    """(B,C,H,W) padded with `pad` black pixels on each side, then (H,W) of each image from its own corner."""
    n, channels, height, width = images.shape
    rows = crops.top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = crops.left + torch.where(crops.mirrored, width - 1 - columns, columns)
    image = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
    padded = F.pad(images, (pad, pad, pad, pad))
    return padded[image, channel, rows.view(n, 1, height, 1), columns.view(n, 1, 1, width)]


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n,3,H,W), each scaled by 0.75 to 1.5, flipped, rotated by 3 to 10 degrees, and blurred over 3 to 9
    pixels, each with probability 1/2; all cropped as from 256 to 224.
    """
    n = len(images)
    zoom = torch.where(_coin(n, generator), uniform(0.75, 1.5, (n,), generator), 1.0) * 256 / 224
    flip = torch.where(_coin(n, generator), -1.0, 1.0)
    tilt = torch.tensor(ANGLES)[torch.randint(0, len(ANGLES), (n,), generator=generator)] * math.pi / 180
    angle = torch.where(_coin(n, generator), tilt, 0.0)
    theta = turn(angle.cos() / zoom, angle.sin() / zoom, images.shape[-2:], flip=flip)
    images, _ = affine(images, theta, "reflection")
    width = torch.tensor(WIDTHS)[torch.randint(0, len(WIDTHS), (n,), generator=generator)]
    return blurred(images, torch.where(_coin(n, generator), width, 1))


def blurred(images: Tensor, width: Tensor) -> Tensor:
    """Images (n,C,H,W), image i under a Gaussian of `width[i]` pixels (odd, at most 9; 1 leaves it alone)."""
    n, c, h, w = images.shape
    sigma = 0.15 * width.view(-1, 1) + 0.35  # the usual choice for a kernel of that width
    at = torch.arange(-4, 5).view(1, -1)
    kernel = (-(at**2) / (2 * sigma**2)).exp() * (at.abs() <= width.view(-1, 1) // 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images).repeat_interleave(c, 0)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect").view(1, n * c, h + 8, w + 8)
    padded = F.conv2d(padded, kernel.view(n * c, 1, 9, 1), groups=n * c)
    return F.conv2d(padded, kernel.view(n * c, 1, 1, 9), groups=n * c).view(n, c, h, w)


def _coin(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < 0.5
