"""Moving labels together with pictures: affine maps, mirroring, and what is left of a face at a border."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

# A labelled face on a canvas: left, top, right, bottom, five landmarks as x, y pairs, and its `Kind`.
ROW_COLUMNS = 15

# Mirroring turns the image-left eye into the image-right one, and likewise the mouth corners; the nose stays.
MIRRORED_LANDMARKS = (1, 0, 2, 4, 3)

# Less of the box than this inside the window, and the region is neither a face nor background.
_MIN_VISIBLE = 0.55
# Under this side a face is a handful of pixels: nothing to learn, but nothing to deny either.
_MIN_SIDE_PX = 11.0

Rows = NDArray[np.float32]
Affine = NDArray[np.float64]
Window = tuple[int, int, int, int]


class Kind(IntEnum):
    """What a row of a canvas's labels stands for."""

    EMPTY = 0
    FACE = 1
    IGNORE = 2
    # A face of which the teacher speaks cell by cell; the row itself asks nothing of any cell.
    TAUGHT = 3


def similarity(scale: float, angle_deg: float, source: Sequence[float], target: Sequence[float]) -> Affine:
    """(2, 3) float64 map that scales, turns (positive is clockwise on screen) and carries `source` onto `target`."""
    angle = np.deg2rad(angle_deg)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.asarray(target, dtype=np.float64) - linear @ np.asarray(source, dtype=np.float64)
    return np.column_stack([linear, shift])


def transform_rows(rows: Rows, matrix: Affine) -> Rows:
    """Carry labels through a similarity.

    A box becomes the upright frame of the turned ellipse inscribed in it: the frame of the turned corners would grow
    with the angle, while the teacher's boxes hug the face at any tilt.

    Args:
        rows: (n, 15) float32, see `ROW_COLUMNS`.
        matrix: (2, 3) float64.

    Returns:
        (n, 15) float32; the kind is kept.
    """
    linear, shift = matrix[:, :2], matrix[:, 2]
    out = rows.copy()
    centres = (rows[:, 0:2] + rows[:, 2:4]) / 2 @ linear.T + shift
    halves = np.sqrt(((rows[:, 2:4] - rows[:, 0:2]) / 2) ** 2 @ (linear**2).T)
    out[:, 0:2], out[:, 2:4] = centres - halves, centres + halves
    out[:, 4:14] = (rows[:, 4:14].reshape(-1, 5, 2) @ linear.T + shift).reshape(-1, 10)
    return out


def mirror_rows(rows: Rows, width: int) -> Rows:
    """Labels of the picture mirrored left to right.

    Args:
        rows: (..., 15) float32, see `ROW_COLUMNS`; empty rows stay empty.
        width: of the picture, pixels; pixel `x` moves to `width - 1 - x`.
    """
    out = rows.copy()
    out[..., 0], out[..., 2] = width - 1 - rows[..., 2], width - 1 - rows[..., 0]
    landmarks = rows[..., 4:14].reshape(*rows.shape[:-1], 5, 2)[..., MIRRORED_LANDMARKS, :]
    landmarks[..., 0] = width - 1 - landmarks[..., 0]
    out[..., 4:14] = landmarks.reshape(*rows.shape[:-1], 10)
    out[rows[..., 14] == Kind.EMPTY] = 0
    return out


def clip_to_window(rows: Rows, window: Window) -> Rows:
    """Decide what each face still is when only a window of the picture is seen.

    A face whose centre and more than about half of whose box are inside stays a face, with its full box; one that is
    cut deeper becomes a region to ignore, trimmed to the window; one that is outside disappears.

    Args:
        rows: (n, 15) float32, see `ROW_COLUMNS`.
        window: left, top, right, bottom, pixels; the last two exclusive.
    """
    low, high = np.array(window[:2], dtype=np.float32), np.array(window[2:], dtype=np.float32)
    size = rows[:, 2:4] - rows[:, 0:2]
    inside = np.clip(np.minimum(rows[:, 2:4], high) - np.maximum(rows[:, 0:2], low), 0, None).prod(axis=1)
    area = np.maximum(size.prod(axis=1), 1e-6)
    centre = (rows[:, 0:2] + rows[:, 2:4]) / 2
    centred = ((centre >= low) & (centre < high)).all(axis=1)
    whole = centred & (inside / area >= _MIN_VISIBLE) & (np.sqrt(area) >= _MIN_SIDE_PX)
    out = rows.copy()
    dropped = ~whole & (rows[:, 14] == Kind.FACE)
    out[dropped, 14] = Kind.IGNORE
    ignored = out[:, 14] == Kind.IGNORE
    out[ignored, 0:2] = np.maximum(out[ignored, 0:2], low)
    out[ignored, 2:4] = np.minimum(out[ignored, 2:4], high)
    return out[inside > 0]
