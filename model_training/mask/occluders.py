"""Masks drawn on bare faces, and other things before a face that are no masks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import CROP_SIDE_PX, TEMPLATE

Crop = NDArray[np.uint8]
Points = NDArray[np.float64]

_SIDE = CROP_SIDE_PX
# Points are drawn in sixteenths of a pixel.
_FRACTION_BITS = 4
_EYES_Y, _NOSE, _MOUTH_Y = float(TEMPLATE[:2, 1].mean()), TEMPLATE[2], float(TEMPLATE[3:, 1].mean())
_MIDDLE_X = float(TEMPLATE[[0, 1, 3, 4], 0].mean())


def with_mask(crop: Crop, rng: np.random.Generator) -> Crop:
    """A face with a mask drawn over nose, mouth and chin, of any colour and pattern, in the light of the face.

    Args:
        crop: (112, 112, 3) uint8, BGR, aligned by the contract.
        rng: the only source of chance.

    Returns:
        (112, 112, 3) uint8, BGR.
    """
    outline = _mask_outline(rng)
    out = crop
    if rng.random() < 0.5:
        out = _with_straps(crop, outline, rng)
    cloth = _cloth(rng)
    if rng.random() < 0.7:
        cloth = _lit_as(crop, cloth)
    return _laid_over(out, cloth, _covered(outline, softness=rng.uniform(0.3, 1.2)))


def with_something_else(crop: Crop, rng: np.random.Generator) -> Crop:
    """A face with glasses, a hat, hair, a microphone, a hand or the like before it; mouth or nose stay in sight.

    Arguments and result are those of `with_mask`.
    """
    return _OTHERS[int(rng.integers(len(_OTHERS)))](crop, rng)


def _mask_outline(rng: np.random.Generator) -> Points:
    """(n, 2) corners: from the bridge of the nose along its sides over the cheeks, down the jaw to under the chin."""
    top = rng.uniform(_EYES_Y + 5, _NOSE[1] - 2)
    bottom = rng.uniform(_MOUTH_Y + 12, _SIDE + 12)
    middle = _MIDDLE_X + rng.uniform(-5, 5)
    half_top, half_jaw, half_chin = rng.uniform(36, 54), rng.uniform(30, 48), rng.uniform(8, 26)
    # By how much the upper edge falls from the nose to the cheeks; that of a scarf is straight.
    fall = rng.uniform(0, 18)
    across = np.linspace(-1, 1, 9)
    edge = np.stack([middle + half_top * across, top + fall * np.abs(across) ** rng.uniform(0.7, 1.6)], axis=1)
    cheek = min(top + fall + rng.uniform(6, 20), bottom - 4)
    right = np.array([[half_jaw * 1.05, cheek], [half_jaw, (cheek + bottom) / 2 + 4], [half_chin, bottom]])
    left = (right * [-1, 1])[::-1]
    # A head that is turned shows more of one side.
    slant = rng.normal(0, 0.08)
    outline = np.concatenate([edge, right + np.array([middle, 0]), left + np.array([middle, 0])])
    outline[:, 0] += slant * (outline[:, 1] - _NOSE[1])
    return outline + rng.normal(0, 0.8, outline.shape)


def _cloth(rng: np.random.Generator) -> Crop:
    """(112, 112, 3) of a fabric: plain, pleated, striped or printed."""
    kind = rng.random()
    colour = _cloth_colour(rng)
    fabric = np.broadcast_to(colour, (_SIDE, _SIDE, 3))
    if kind < 0.3:
        period, phase, depth = rng.uniform(8, 20), rng.uniform(0, 9), rng.uniform(0.05, 0.25)
        pleats = 1 - depth * (np.sin(2 * np.pi * np.arange(_SIDE) / period + phase) > 0.6)
        fabric = fabric * pleats[:, None, None].astype(np.float32)
    elif kind < 0.45:
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 24)
        along = 2 * np.pi / period * np.arange(_SIDE)
        stripe = np.sin(along * np.cos(angle) + along[:, None] * np.sin(angle)) > rng.uniform(-0.5, 0.5)
        fabric = np.where(stripe[..., None], fabric, _cloth_colour(rng))
    elif kind < 0.65:
        cells = int(rng.integers(3, 16))
        fabric = fabric + _spread(rng.uniform(-0.5, 0.5, (cells, cells, 3)) * rng.uniform(30, 200))
    # Folds and the roundness of the face.
    folds = _spread(rng.normal(1, rng.uniform(0.02, 0.15), (5, 5)))
    round_ = 1 - rng.uniform(0, 0.4) * (np.abs(np.arange(_SIDE, dtype=np.float32) - _MIDDLE_X) / _MIDDLE_X) ** 2
    weave = rng.standard_normal((_SIDE, _SIDE), dtype=np.float32) * np.float32(rng.uniform(0, 8))
    return np.clip(fabric * (folds * round_)[..., None] + weave[..., None], 0, 255).astype(np.uint8)


def _spread(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Few values over the whole crop, smoothly."""
    return np.asarray(
        cv2.resize(values.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR), dtype=np.float32
    )


def _cloth_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    kind = rng.random()
    if kind < 0.25:
        colour = rng.uniform(190, 255) + rng.uniform(-12, 12, 3)
    elif kind < 0.45:
        # The blue and green of surgical masks.
        hue, saturation, value = rng.uniform(80, 115), rng.uniform(30, 160), rng.uniform(120, 245)
        colour = cv2.cvtColor(np.array([[[hue, saturation, value]]]).astype(np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    elif kind < 0.65:
        colour = rng.uniform(5, 60) + rng.uniform(-5, 15, 3)
    else:
        colour = rng.uniform(0, 255, 3)
    return np.asarray(colour, dtype=np.float32)


def _lit_as(crop: Crop, cloth: Crop) -> Crop:
    """The cloth in the light that falls on the face below it."""
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (7, 7), interpolation=cv2.INTER_AREA)
    gain = _spread(np.clip(grey / max(float(grey[4:].mean()), 1.0), 0.5, 1.5))
    return np.clip(cloth * gain[..., None], 0, 255).astype(np.uint8)


def _with_straps(crop: Crop, outline: Points, rng: np.random.Generator) -> Crop:
    out = crop.copy()
    colour = tuple(float(v) for v in _cloth_colour(rng))
    for corner, side in ((outline[8], 1), (outline[9], 1), (outline[0], -1), (outline[-1], -1)):
        end = corner + np.array([side * 40, rng.uniform(-25, 5)])
        cv2.line(out, _whole(corner), _whole(end), colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    return out


def _glasses(crop: Crop, rng: np.random.Generator) -> Crop:
    cover = np.zeros((_SIDE, _SIDE), np.float32)
    axes = rng.uniform(11, 17), rng.uniform(7, 14)
    for eye in TEMPLATE[:2]:
        centre = _whole(eye + rng.uniform(-2, 2, 2) + np.array([0, 2]))
        cv2.ellipse(cover, centre, _whole(axes), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    cv2.line(cover, _whole(TEMPLATE[0]), _whole(TEMPLATE[1]), 1.0, 2, cv2.LINE_AA)
    return _laid_over(crop, _cloth(rng) // 3, cover * rng.uniform(0.6, 1.0))


def _hat_or_hair(crop: Crop, rng: np.random.Generator) -> Crop:
    edge = rng.uniform(8, _EYES_Y + 4)
    slope = rng.normal(0, 8)
    corners = np.array([[0, 0], [_SIDE, 0], [_SIDE, edge + slope], [_MIDDLE_X, edge - 4], [0, edge - slope]])
    return _laid_over(crop, _cloth(rng), _covered(corners, softness=rng.uniform(0.3, 2.0)))


def _curtain(crop: Crop, rng: np.random.Generator) -> Crop:
    """Hair, a hood or a veil along one side or both."""
    cover = np.zeros((_SIDE, _SIDE), np.float32)
    for side in (-1, 1):
        if rng.random() < 0.7:
            x = _MIDDLE_X + side * rng.uniform(26, 50)
            edge = [_MIDDLE_X + side * 90, x + rng.normal(0, 6), x + rng.normal(0, 6), _MIDDLE_X + side * 90]
            corners = np.stack([edge, [-5, -5, _SIDE + 5, _SIDE + 5]], axis=1)
            cover = np.maximum(cover, _covered(corners, softness=rng.uniform(0.3, 2.0)))
    return _laid_over(crop, _cloth(rng), cover)


def _patch(crop: Crop, rng: np.random.Generator) -> Crop:
    """A microphone, a cup, letters: something small anywhere."""
    cover = np.zeros((_SIDE, _SIDE), np.float32)
    axes = rng.uniform(4, 17, 2)
    centre = rng.uniform([5, 5], [_SIDE - 5, _SIDE - 5])
    cv2.ellipse(cover, _whole(centre), _whole(axes), rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        end = _whole([centre[0] + rng.normal(0, 40), _SIDE + 20])
        cv2.line(cover, _whole(centre), end, 1.0, int(rng.integers(3, 12)), cv2.LINE_AA)
    return _laid_over(crop, _cloth(rng), cover)


def _under_the_chin(crop: Crop, rng: np.random.Generator) -> Crop:
    """A collar, a scarf, or a mask that was pulled down."""
    edge = rng.uniform(_MOUTH_Y + 8, _SIDE - 3)
    dip = rng.uniform(0, 8)
    corners = np.array([[-5, edge - dip], [_MIDDLE_X, edge + dip], [_SIDE + 5, edge - dip], [120, 130], [-8, 130]])
    return _laid_over(crop, _cloth(rng), _covered(corners, softness=0.6))


def _hand(crop: Crop, rng: np.random.Generator) -> Crop:
    """Skin of the face's own colour over a side of the mouth and the cheek, with fingers."""
    skin = crop[int(_NOSE[1]) - 8 : int(_NOSE[1]) + 8, 20:92].reshape(-1, 3).mean(axis=0) * rng.uniform(0.7, 1.2)
    cover = np.zeros((_SIDE, _SIDE), np.float32)
    side = 1 if rng.random() < 0.5 else -1
    start = np.array([_MIDDLE_X + side * rng.uniform(14, 30), rng.uniform(82, 112)])
    direction = np.array([side * rng.uniform(-0.3, 1.0), -1.0])
    for finger in range(int(rng.integers(1, 5))):
        tip = start + direction * rng.uniform(15, 40) + np.array([side * finger * 8, finger * 3])
        base = start + np.array([side * finger * 9, 40])
        cv2.line(cover, _whole(base), _whole(tip), 1.0, int(rng.integers(6, 10)), cv2.LINE_AA)
    surface = np.clip(skin + rng.normal(0, 4, (_SIDE, _SIDE, 1)), 0, 255).astype(np.uint8)
    return _laid_over(crop, surface, cover)


_OTHERS: tuple[Callable[[Crop, np.random.Generator], Crop], ...] = (
    _glasses, _hat_or_hair, _curtain, _patch, _under_the_chin, _hand,
)  # fmt: skip


def _covered(outline: Points, *, softness: float) -> NDArray[np.float32]:
    """(112, 112) share of each pixel inside the outline."""
    cover = np.zeros((_SIDE, _SIDE), np.float32)
    corners = np.round(outline * (1 << _FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(cover, [corners], 1.0, cv2.LINE_AA, _FRACTION_BITS)
    return np.asarray(cv2.GaussianBlur(cover, (0, 0), softness), dtype=np.float32)


def _laid_over(crop: Crop, surface: Crop, cover: NDArray[np.float32]) -> Crop:
    return np.asarray(cv2.blendLinear(surface, crop, cover, 1 - cover), dtype=np.uint8)


def _whole(values: NDArray[np.floating] | tuple[float, ...] | list[float]) -> tuple[int, int]:
    x, y = values
    return round(float(x)), round(float(y))
