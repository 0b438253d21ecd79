"""Augmented views of aligned faces. The teacher labels the very pixels that the student sees, so anything goes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import CROP_SIDE_PX

Crop = NDArray[np.uint8]
Change = Callable[[Crop, np.random.Generator], Crop]

_SIDE = CROP_SIDE_PX


def clean_view(crop: Crop) -> Crop:
    """The crop itself."""
    return crop


def augmented_view(crop: Crop, rng: np.random.Generator) -> Crop:
    """One random view of an aligned face, part of which may be covered.

    Args:
        crop: (112, 112, 3) uint8, BGR.
        rng: the only source of chance.

    Returns:
        (112, 112, 3) uint8, BGR.
    """
    return _changed(crop, rng, _CHANGES)


def photographed_again(crop: Crop, rng: np.random.Generator) -> Crop:
    """What it shows, as another camera, light, compression or alignment might have shown it.

    Args:
        crop: (112, 112, 3) uint8, BGR.
        rng: the only source of chance.

    Returns:
        (112, 112, 3) uint8, BGR.
    """
    return _changed(crop, rng, _OF_THE_CAMERA)


def _changed(crop: Crop, rng: np.random.Generator, changes: tuple[tuple[float, Change], ...]) -> Crop:
    view = crop[:, ::-1] if rng.random() < 0.5 else crop
    for chance, change in changes:
        if rng.random() < chance:
            view = change(view, rng)
    return np.ascontiguousarray(view)


def mixed_view(first: Crop, second: Crop, rng: np.random.Generator) -> Crop:
    """Blend of two faces: a point between identities, where the teacher's answer is as good a lesson as anywhere."""
    share = float(rng.uniform(0.3, 0.7))
    return np.asarray(cv2.addWeighted(first, share, second, 1.0 - share, 0.0), dtype=np.uint8)


def _shift(view: Crop, rng: np.random.Generator) -> Crop:
    """What an imprecise landmark does: a small rotation, zoom and offset."""
    matrix = cv2.getRotationMatrix2D((_SIDE / 2, _SIDE / 2), rng.uniform(-10, 10), rng.uniform(0.92, 1.08))
    matrix[:, 2] += rng.uniform(-4, 4, 2)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    return np.asarray(
        cv2.warpAffine(view, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR, borderMode=border), dtype=np.uint8
    )


def _blur(view: Crop, rng: np.random.Generator) -> Crop:
    return np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.8)), dtype=np.uint8)


def _lower_resolution(view: Crop, rng: np.random.Generator) -> Crop:
    side = int(rng.integers(28, 90))
    small = cv2.resize(view, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _light(view: Crop, rng: np.random.Generator) -> Crop:
    table = np.linspace(0, 1, 256) ** np.exp(rng.uniform(-0.5, 0.5))
    table = np.clip((table - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.15, 0.15), 0, 1)
    return np.asarray(cv2.LUT(view, (table * 255).astype(np.uint8)), dtype=np.uint8)


def _tint(view: Crop, rng: np.random.Generator) -> Crop:
    gains = rng.uniform(0.85, 1.15, 3)
    return np.clip(view * gains, 0, 255).astype(np.uint8)


def _grey(view: Crop, rng: np.random.Generator) -> Crop:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def _jpeg(view: Crop, rng: np.random.Generator) -> Crop:
    encoded = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)


def _occlude(view: Crop, rng: np.random.Generator) -> Crop:
    """Cover a rectangle, or the lower face as a mask does."""
    out = view.copy()
    colour = rng.integers(0, 256, 3).tolist()
    if rng.random() < 0.3:
        top = int(rng.integers(62, 76))
        out[top:, 14:98] = colour
        return out
    height, width = rng.integers(16, 52, 2)
    top, left = rng.integers(0, _SIDE - 16, 2)
    out[top : top + height, left : left + width] = colour
    return out


_OF_THE_CAMERA: tuple[tuple[float, Change], ...] = (
    (0.8, _shift),
    (0.2, _blur),
    (0.2, _lower_resolution),
    (0.5, _light),
    (0.3, _tint),
    (0.08, _grey),
    (0.25, _jpeg),
)
_CHANGES = (*_OF_THE_CAMERA, (0.2, _occlude))
