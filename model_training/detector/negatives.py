"""Pictures without a face: made-up textures, faceless parts of photos, and faces taken apart.

A detector that has only ever seen faces finds them in foliage and masonry; these are what it learns to refuse.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_TRIES = 12
_MIN_PATCH_PX = 20


def texture(height: int, width: int, rng: np.random.Generator) -> Image:
    """A made-up texture: (height, width, 3) uint8, BGR."""
    make = _TEXTURES[int(rng.integers(len(_TEXTURES)))]
    image = make(height, width, rng)
    if rng.random() < 0.3:
        other = _TEXTURES[int(rng.integers(len(_TEXTURES)))](height, width, rng)
        share = rng.uniform(0.3, 0.7)
        image = np.asarray(cv2.addWeighted(image, share, other, 1 - share, 0), dtype=np.uint8)
    return image


def faceless_patch(image: Image, boxes: NDArray[np.float32], rng: np.random.Generator) -> Image | None:
    """A random rectangle of a photo that touches no face.

    Args:
        image: (height, width, 3) uint8, BGR.
        boxes: (n, 4) left, top, right, bottom of everything that may be a face, however faintly.

    Returns:
        (h, w, 3) uint8, or None where a few tries found no room.
    """
    height, width = image.shape[:2]
    margin = 0.1 * (boxes[:, 2:4] - boxes[:, 0:2])
    low, high = boxes[:, 0:2] - margin, boxes[:, 2:4] + margin
    for _ in range(_TRIES):
        sides = rng.uniform(_MIN_PATCH_PX, 0.7 * min(height, width), 2)
        left, top = rng.uniform(0, width - sides[0]), rng.uniform(0, height - sides[1])
        apart = (high[:, 0] < left) | (low[:, 0] > left + sides[0]) | (high[:, 1] < top) | (low[:, 1] > top + sides[1])
        if apart.all():
            return image[int(top) : int(top + sides[1]), int(left) : int(left + sides[0])]
    return None


def photo_patch(photo: Image, rng: np.random.Generator) -> Image:
    """A random square of a photo without faces, at any of eight orientations: (side, side, 3) uint8."""
    shortest = min(photo.shape[:2])
    side = int(np.exp(rng.uniform(np.log(min(48, shortest)), np.log(shortest))))
    left, top = int(rng.integers(photo.shape[1] - side + 1)), int(rng.integers(photo.shape[0] - side + 1))
    patch = np.rot90(photo[top : top + side, left : left + side], int(rng.integers(4)))
    return np.ascontiguousarray(patch[:, ::-1] if rng.random() < 0.5 else patch)


def face_part(face: Image, rng: np.random.Generator) -> Image:
    """A piece of a face, too little to be one: an eye, a mouth, a cheek with some hair.

    Args:
        face: (height, width, 3) uint8, a tight crop.

    Returns:
        (h, w, 3) uint8, under a quarter of the face.
    """
    height, width = face.shape[:2]
    part_height, part_width = (max(4, int(v * rng.uniform(0.15, 0.45))) for v in (height, width))
    top, left = int(rng.integers(height - part_height + 1)), int(rng.integers(width - part_width + 1))
    return face[top : top + part_height, left : left + part_width]


def scrambled(face: Image, rng: np.random.Generator) -> Image:
    """A face cut into tiles that all change places: the right colours and edges in the wrong order.

    Args:
        face: (height, width, 3) uint8, a tight crop.

    Returns:
        (side, side, 3) uint8, where the side is a multiple of the tile's.
    """
    count = int(rng.integers(2, 6))
    tile = max(4, max(face.shape[:2]) // count)
    square = cv2.resize(face, (tile * count, tile * count), interpolation=cv2.INTER_AREA)
    tiles = square.reshape(count, tile, count, tile, 3).transpose(0, 2, 1, 3, 4).reshape(-1, tile, tile, 3)
    # A random cycle is a permutation that leaves no tile in its place.
    cycle = rng.permutation(len(tiles))
    order = np.empty_like(cycle)
    order[cycle] = np.roll(cycle, 1)
    moved = tiles[order]
    if rng.random() < 0.5:
        turned = rng.integers(0, 4, len(moved))
        moved = np.stack([np.rot90(part, turn) for part, turn in zip(moved, turned, strict=True)])
    out = moved.reshape(count, count, tile, tile, 3).transpose(0, 2, 1, 3, 4).reshape(count * tile, count * tile, 3)
    return np.ascontiguousarray(out)


def filled_with(patch: Image, height: int, width: int, *, tiled: bool) -> Image:
    """A patch stretched, or tiled by reflection, to (height, width, 3)."""
    if not tiled:
        shrinks = patch.shape[0] > height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(patch, (width, height), interpolation=how), dtype=np.uint8)
    rows = np.abs((np.arange(height) + patch.shape[0]) % (2 * patch.shape[0]) - patch.shape[0])
    columns = np.abs((np.arange(width) + patch.shape[1]) % (2 * patch.shape[1]) - patch.shape[1])
    chosen = patch[np.minimum(rows, patch.shape[0] - 1)][:, np.minimum(columns, patch.shape[1] - 1)]
    return np.ascontiguousarray(chosen)


def _palette(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Colours scattered around one, as in a photo under one light; skin tones among them on purpose."""
    base = np.array([120, 150, 200]) if rng.random() < 0.35 else rng.uniform(20, 235, 3)
    return np.clip(base + rng.normal(0, rng.uniform(10, 70), (count, 3)), 0, 255)


def _clouds(height: int, width: int, rng: np.random.Generator) -> Image:
    """Noise with a power-law spectrum, the statistics of natural scenes."""
    out = np.zeros((height, width, 3), dtype=np.float32)
    roughness = rng.uniform(0.4, 1.0)
    cell, weight = 64.0, 1.0
    while cell >= 1:
        shape = (max(2, round(height / cell)), max(2, round(width / cell)), 3 if rng.random() < 0.5 else 1)
        noise = rng.normal(0, 1, shape).astype(np.float32)
        grown = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        out += weight * (grown if grown.ndim == 3 else grown[..., None])
        cell, weight = cell / 2, weight * roughness
    out = out / (out.std() + 1e-6) * rng.uniform(15, 60) + _palette(1, rng)
    return np.clip(out, 0, 255).astype(np.uint8)


def _leaves(height: int, width: int, rng: np.random.Generator) -> Image:
    """Overlapping shapes whose sizes follow a power law (the dead-leaves model of images)."""
    count = int(rng.integers(30, 220))
    colours = _palette(count, rng)
    out = np.empty((height, width, 3), dtype=np.uint8)
    out[:] = colours[0]
    radii = np.sort(np.clip(3 * rng.pareto(1.2, count) + 3, 3, 0.4 * max(height, width)))[::-1]
    kind = rng.random()
    for radius, colour in zip(radii, colours, strict=True):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(radius) + 1, int(radius * rng.uniform(0.25, 1)) + 1)
        if kind < 0.5:
            cv2.ellipse(out, centre, axes, rng.uniform(0, 180), 0, 360, colour.tolist(), -1, cv2.LINE_AA)
        elif kind < 0.75:
            cv2.rectangle(out, centre, (centre[0] + axes[0], centre[1] + axes[1]), colour.tolist(), -1)
        else:
            corners = np.array(centre) + rng.normal(0, radius, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(out, [corners.astype(np.int32)], colour.tolist(), cv2.LINE_AA)
    return out


def _stripes(height: int, width: int, rng: np.random.Generator) -> Image:
    """Periodic bands or grids, straight or bent: fences, tiles, windows, petals."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = rng.uniform(0, 12) * np.sin(y / rng.uniform(15, 60)) + rng.uniform(0, 12) * np.cos(x / rng.uniform(15, 60))
    angle = rng.uniform(0, np.pi)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle) + bend) * 2 * np.pi / rng.uniform(4, 48))
    if rng.random() < 0.5:
        other = np.sin((y * np.cos(angle) - x * np.sin(angle) + bend) * 2 * np.pi / rng.uniform(4, 48))
        wave = wave * other if rng.random() < 0.5 else np.maximum(wave, other)
    if rng.random() < 0.5:
        wave = np.tanh(wave * rng.uniform(2, 20))
    low, high = _palette(2, rng)
    share = (wave[..., None] + 1) / 2
    return np.clip(low + (high - low) * share, 0, 255).astype(np.uint8)


def _blobs(height: int, width: int, rng: np.random.Generator) -> Image:
    """Dark and light spots on a ground, skin-coloured at times: knots, pebbles, buttons, sockets."""
    ground, *spots = _palette(int(rng.integers(4, 16)), rng)
    out = np.empty((height, width, 3), dtype=np.uint8)
    out[:] = ground
    for spot in spots:
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = tuple(int(v) for v in rng.uniform(2, 0.2 * max(height, width), 2))
        cv2.ellipse(out, centre, axes, rng.uniform(0, 180), 0, 360, (spot * rng.uniform(0.2, 1.2)).tolist(), -1)
    return np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.5, 6)), dtype=np.uint8)


def _gradient(height: int, width: int, rng: np.random.Generator) -> Image:
    """A smooth change of colour with a little noise: sky, walls, and the black of a padded border."""
    corners = _palette(4, rng).reshape(2, 2, 3).astype(np.float32) * (0 if rng.random() < 0.15 else 1)
    out = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(out + rng.normal(0, rng.uniform(0, 8), out.shape), 0, 255).astype(np.uint8)


def _noise(height: int, width: int, rng: np.random.Generator) -> Image:
    """White noise, grey or coloured, blown up by a random factor."""
    grain = int(rng.integers(1, 9))
    shape = (-(-height // grain), -(-width // grain), 3 if rng.random() < 0.5 else 1)
    small = np.broadcast_to(rng.integers(0, 256, shape, dtype=np.uint8), (*shape[:2], 3))
    return np.ascontiguousarray(np.kron(small, np.ones((grain, grain, 1), dtype=np.uint8))[:height, :width])


_TEXTURES: tuple[Callable[[int, int, np.random.Generator], Image], ...] = (
    _clouds,
    _leaves,
    _leaves,
    _stripes,
    _blobs,
    _gradient,
    _noise,
)
