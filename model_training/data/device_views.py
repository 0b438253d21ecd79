"""Random views of many aligned faces at once, drawn where the network trains.

The changes are those of `views.py` and two that make other people: smooth distortions of a face, and two faces spliced
along a line. A teacher that labels the very pixels answers for them as it does for photos.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from service.contract import CROP_SIDE_PX

_SIDE = CROP_SIDE_PX
_BLOCK = 8
# ITU-T T.81, annex K: the tables that JPEG encoders scale by quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8),) * 4,
)
_RGB_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_YCC_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))

# Shares of a batch: left as they are but for mirroring, blended with another face, spliced with another.
_CLEAN, _BLENDED, _SPLICED = 0.125, 0.25, 0.1

# Parts of an aligned face as ellipses, in pixels: middle and half axes, right and down. Eyes, nose, mouth, all of them.
_PARTS = ((56, 51, 38, 14), (56, 68, 14, 20), (56, 92, 26, 14), (56, 70, 34, 38))


class Chance:
    """Random numbers on a device, and on the host those that decide shapes: nothing waits for the device.

    Args:
        seed: of all of them.
        device: where the numbers are made.

    Attributes:
        host: for what the host has to know.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self.host = random.Random(seed)

    def uniform(self, count: int, low: float, high: float) -> Tensor:
        """(count,) float32 in [low, high)."""
        return torch.rand(count, generator=self._generator, device=self._generator.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """float32 of any shape."""
        return torch.randn(shape, generator=self._generator, device=self._generator.device)

    def permutation(self, count: int) -> Tensor:
        """(count,) int64."""
        return torch.randperm(count, generator=self._generator, device=self._generator.device)


def fresh_views(crops: Tensor, chance: Chance, composed: float = 0.0) -> tuple[Tensor, Tensor]:
    """One random view of each face.

    Args:
        crops: (n, 3, 112, 112) uint8, on the device of `chance`.
        chance: the only source of chance.
        composed: share of the views, at most 0.65, in which one part of the face is somebody else's.

    Returns:
        (n, 3, 112, 112) float32, whole numbers in 0..255, and (n,) bool: whether a second face is in it.
    """
    count = len(crops)
    faces = crops.float()
    mirrored = chance.uniform(count, 0, 1)[:, None, None, None] < 0.5
    faces = torch.where(mirrored, faces.flip(3), faces)
    changed = faces
    for share, change in _CHANGES:
        changed = _some(changed, share, change, chance)
    clean = chance.uniform(count, 0, 1) < _CLEAN
    views = torch.where(clean[:, None, None, None], faces, changed)
    views, mixed = _mixed(views, clean, chance, composed)
    return views.round().clamp(0, 255), mixed


def _each(values: Tensor) -> Tensor:
    """(n,) as (n, 1, 1, 1)."""
    return values[:, None, None, None]


def _some(faces: Tensor, share: float, change: Callable[[Tensor, Chance], Tensor], chance: Chance) -> Tensor:
    """Change a share of the faces, which ones by chance; always as many, so that nothing waits for a count."""
    chosen = chance.permutation(len(faces))[: round(share * len(faces))]
    if not len(chosen):
        return faces
    return faces.index_copy(0, chosen, change(faces[chosen], chance))


def _coordinates(device: torch.device) -> tuple[Tensor, Tensor]:
    """Column and row of every pixel's middle in -1..1, each (112, 112)."""
    line = (torch.arange(_SIDE, device=device) + 0.5) * 2 / _SIDE - 1
    return line.expand(_SIDE, _SIDE), line[:, None].expand(_SIDE, _SIDE)


def _sampled(faces: Tensor, grid: Tensor, chance: Chance) -> Tensor:
    """Faces read at (n, 112, 112, 2) places; beyond the edge, half of them repeat it and half are black."""
    out = functional.grid_sample(faces, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(dim=3)[:, None]
    repeats = _each(chance.uniform(len(faces), 0, 1)) < 0.5
    return out * (inside | repeats)


def _shift(faces: Tensor, chance: Chance) -> Tensor:
    """What an imprecise landmark does: a small rotation, zoom and offset."""
    count = len(faces)
    angle = chance.uniform(count, -math.pi / 18, math.pi / 18)
    zoom = chance.uniform(count, 0.92, 1.08)
    offsets = chance.uniform(2 * count, -8 / _SIDE, 8 / _SIDE).view(count, 2)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    matrix = torch.stack([torch.stack([cos, -sin, offsets[:, 0]], 1), torch.stack([sin, cos, offsets[:, 1]], 1)], 1)
    grid = functional.affine_grid(matrix, list(faces.shape), align_corners=False)
    return _sampled(faces, grid, chance)


def _distort(faces: Tensor, chance: Chance) -> Tensor:
    """Move features by up to a few pixels, smoothly: the face of somebody else."""
    count = len(faces)
    strength = _each(chance.uniform(count, 0.5, 3.0)) * 2 / _SIDE
    coarse = chance.normal(count, 2, 5, 5) * strength
    moves = functional.interpolate(coarse, size=(_SIDE, _SIDE), mode="bicubic", align_corners=True)
    columns, rows = _coordinates(faces.device)
    grid = torch.stack([columns + moves[:, 0], rows + moves[:, 1]], dim=3)
    return _sampled(faces, grid, chance)


def _blur(faces: Tensor, chance: Chance) -> Tensor:
    sigma = chance.uniform(len(faces), 0.4, 1.8)
    reach = torch.arange(-4, 5, device=faces.device)
    weights = torch.exp(-0.5 * (reach[None] / sigma[:, None]) ** 2)
    weights = weights / weights.sum(dim=1, keepdim=True)
    for padding, axis in (((4, 4, 0, 0), 3), ((0, 0, 4, 4), 2)):
        padded = functional.pad(faces, padding, mode="replicate")
        parts = [padded.narrow(axis, place, _SIDE) * _each(weights[:, place]) for place in range(9)]
        faces = torch.stack(parts).sum(dim=0)
    return faces


def _lower_resolution(faces: Tensor, chance: Chance) -> Tensor:
    # A size for each quarter: a batch of pictures has one size.
    sides = [chance.host.randint(28, 89) for _ in range(4)]
    quarters = []
    for part, side in zip(faces.chunk(4), sides, strict=False):
        small = functional.interpolate(part, size=(side, side), mode="area")
        quarters.append(functional.interpolate(small, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False))
    return torch.cat(quarters)


def _light(faces: Tensor, chance: Chance) -> Tensor:
    count = len(faces)
    gamma = torch.exp(_each(chance.uniform(count, -0.5, 0.5)))
    contrast, brightness = _each(chance.uniform(count, 0.7, 1.3)), _each(chance.uniform(count, -0.15, 0.15))
    bright = (faces.clamp(0, 255) / 255) ** gamma
    return (((bright - 0.5) * contrast + 0.5 + brightness) * 255).clamp(0, 255)


def _tint(faces: Tensor, chance: Chance) -> Tensor:
    gains = chance.uniform(3 * len(faces), 0.85, 1.15).view(-1, 3, 1, 1)
    return (faces * gains).clamp(0, 255)


def _grey(faces: Tensor, _: Chance) -> Tensor:
    weights = torch.tensor(_RGB_TO_YCC[0], device=faces.device).view(1, 3, 1, 1)
    return (faces * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def _noise(faces: Tensor, chance: Chance) -> Tensor:
    strength = _each(chance.uniform(len(faces), 1, 10))
    noise = chance.normal(*faces.shape)
    return (faces + noise * strength).clamp(0, 255)


def _jpeg(faces: Tensor, chance: Chance) -> Tensor:
    """What JPEG at quality 20 to 80 loses, chroma at half resolution; without the rounding that entropy codes need."""
    quality = chance.uniform(len(faces), 20, 80)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    planes = torch.einsum("dc,nchw->ndhw", torch.tensor(_RGB_TO_YCC, device=faces.device), faces)
    luminance = _quantised(planes[:, :1] - 128, _LUMINANCE, scale) + 128
    halves = functional.avg_pool2d(planes[:, 1:], 2)
    chrominance = functional.interpolate(_quantised(halves, _CHROMINANCE, scale), scale_factor=2.0, mode="nearest")
    restored = torch.cat([luminance, chrominance], dim=1)
    return torch.einsum("dc,nchw->ndhw", torch.tensor(_YCC_TO_RGB, device=faces.device), restored).clamp(0, 255)


def _quantised(planes: Tensor, table: tuple[tuple[int, ...], ...], scale: Tensor) -> Tensor:
    """Planes of (n, c, h, w), multiples of eight, with every block's cosines rounded to the table's steps."""
    count, channels, height, width = planes.shape
    cosines = _cosines(planes.device)
    blocks = planes.view(count, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
    steps = (torch.tensor(table, device=planes.device) * scale[:, None, None]).round().clamp(1, 255)
    steps = steps[:, None, None, None]
    rounded = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ rounded @ cosines).transpose(3, 4).reshape(count, channels, height, width)


def _cosines(device: torch.device) -> Tensor:
    """(8, 8): the orthonormal cosine transform of type II."""
    place = torch.arange(_BLOCK, device=device)
    matrix = torch.cos((2 * place[None] + 1) * place[:, None] * math.pi / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def _occlude(faces: Tensor, chance: Chance) -> Tensor:
    """Cover a rectangle, or the lower face as a mask does, in one colour."""
    count = len(faces)
    lower = chance.uniform(count, 0, 1) < 0.3
    height, width = chance.uniform(count, 16, 52), chance.uniform(count, 16, 52)
    top = torch.where(lower, chance.uniform(count, 62, 76), chance.uniform(count, 0, _SIDE - 16))
    left = torch.where(lower, torch.full_like(top, 14), chance.uniform(count, 0, _SIDE - 16))
    bottom = torch.where(lower, torch.full_like(top, _SIDE), top + height)
    right = torch.where(lower, torch.full_like(top, 98), left + width)
    place = torch.arange(_SIDE, device=faces.device)
    rows = (place >= top[:, None]) & (place < bottom[:, None])
    columns = (place >= left[:, None]) & (place < right[:, None])
    colours = chance.uniform(3 * count, 0, 255).view(count, 3, 1, 1)
    return torch.where((rows[:, :, None] & columns[:, None])[:, None], colours, faces)


def _mixed(views: Tensor, clean: Tensor, chance: Chance, composed: float) -> tuple[Tensor, Tensor]:
    """Blend, splice or compose a share of the views with others: points between identities."""
    count = len(views)
    lot = chance.uniform(count, 0, 1)
    others = views[chance.permutation(count)]
    blended = (lot < _BLENDED) & ~clean
    spliced = (lot > 1 - _SPLICED) & ~clean
    share = _each(chance.uniform(count, 0.3, 0.7))
    angle, offset = _each(chance.uniform(count, 0, 2 * math.pi)), _each(chance.uniform(count, -0.3, 0.3))
    columns, rows = _coordinates(views.device)
    line = torch.sigmoid((columns * torch.cos(angle) + rows * torch.sin(angle) - offset) * 12)
    weight = torch.where(_each(blended), share, torch.where(_each(spliced), line, torch.ones_like(share)))
    mixed = blended | spliced
    if composed:
        replaced = (lot >= _BLENDED) & (lot < _BLENDED + composed) & ~clean
        weight = torch.where(_each(replaced), 1 - _part(count, chance), weight)
        others = torch.where(_each(replaced), _coloured_as(views, others), others)
        mixed = mixed | replaced
    return views * weight + others * (1 - weight), mixed


def _part(count: int, chance: Chance) -> Tensor:
    """(count, 1, 112, 112) in 0..1: where one part of a face is, with soft edges, a little off its place and size."""
    which = (chance.uniform(count, 0, 1) * len(_PARTS)).long().clamp(max=len(_PARTS) - 1)
    ellipse = torch.tensor(_PARTS, dtype=torch.float32, device=which.device)[which]
    middle = (ellipse[:, :2] + chance.uniform(2 * count, -4, 4).view(count, 2)) * 2 / _SIDE - 1
    axes = ellipse[:, 2:] * chance.uniform(2 * count, 0.85, 1.2).view(count, 2) * 2 / _SIDE
    columns, rows = _coordinates(which.device)
    away = ((columns - _each(middle[:, 0])) / _each(axes[:, 0])) ** 2
    away = away + ((rows - _each(middle[:, 1])) / _each(axes[:, 1])) ** 2
    return torch.sigmoid((1 - away) * 6)


def _coloured_as(faces: Tensor, others: Tensor) -> Tensor:
    """`others` with the mean colour and contrast that `faces` have in the middle: skin that would belong together."""
    inner = slice(_SIDE // 4, -_SIDE // 4)
    (spread, mean), (their_spread, their_mean) = (
        torch.std_mean(batch[:, :, inner, inner], dim=(2, 3), keepdim=True) for batch in (faces, others)
    )
    gain = (spread / their_spread.clamp(min=1)).clamp(0.5, 2)
    return ((others - their_mean) * gain + mean).clamp(0, 255)


_CHANGES: tuple[tuple[float, Callable[[Tensor, Chance], Tensor]], ...] = (
    (0.3, _distort),
    (0.8, _shift),
    (0.2, _blur),
    (0.2, _lower_resolution),
    (0.5, _light),
    (0.3, _tint),
    (0.08, _grey),
    (0.1, _noise),
    (0.25, _jpeg),
    (0.2, _occlude),
)
