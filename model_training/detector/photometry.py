"""Changes to pixels that leave a face where it is: light, colour, blur, compression, occlusion."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from model_training.detector.geometry import Kind, Rows

Image = NDArray[np.uint8]


def changed_light(image: Image, rng: np.random.Generator) -> Image:
    """Another exposure, contrast, tint, or none of the colour."""
    ramp = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.uniform(-0.6, 0.6))
    ramp = (ramp - 0.5) * rng.uniform(0.6, 1.35) + 0.5 + rng.uniform(-0.2, 0.15)
    ramp = ramp * rng.uniform(0.85, 1.15, 3) if rng.random() < 0.5 else np.repeat(ramp, 3, axis=1)
    if rng.random() < 0.1:
        image = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    table = np.clip(ramp * 255, 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)


def softened(image: Image, rng: np.random.Generator) -> Image:
    """Out of focus, or moved while the shutter was open."""
    if rng.random() < 0.6:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)), dtype=np.uint8)
    length = int(rng.integers(2, 5))
    kernel = np.eye(length) if rng.random() < 0.3 else np.ones((1, length) if rng.random() < 0.5 else (length, 1))
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), dtype=np.uint8)


def compressed(image: Image, rng: np.random.Generator) -> Image:
    """Through a JPEG of low quality."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)


def noisy(image: Image, rng: np.random.Generator) -> Image:
    """Sensor noise."""
    noise = rng.normal(0, rng.uniform(2, 14), image.shape).astype(np.int16)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def occluded(image: Image, rows: Rows, rng: np.random.Generator) -> Image:
    """Cover a part of each face, as glasses, masks, hands and hair do. The labels stay: the face is still there."""
    out = image.copy()
    for row in rows[rows[:, 14] == Kind.FACE]:
        if rng.random() < 0.4:
            continue
        left, top, right, bottom = (float(v) for v in row[:4])
        width, height = right - left, bottom - top
        kind = rng.random()
        if kind < 0.3:  # a mask
            low = (left, top + height * rng.uniform(0.55, 0.7))
            high = (right, bottom)
        elif kind < 0.5:  # dark glasses
            middle = float(row[[5, 7]].mean())
            low = (left + 0.05 * width, middle - 0.1 * height)
            high = (right - 0.05 * width, middle + 0.1 * height)
        else:
            low = (left + width * rng.uniform(-0.2, 0.75), top + height * rng.uniform(-0.2, 0.75))
            high = (low[0] + width * rng.uniform(0.15, 0.45), low[1] + height * rng.uniform(0.15, 0.45))
        colour = (rng.integers(0, 256, 3) if kind >= 0.5 or rng.random() < 0.5 else rng.integers(0, 60, 3)).tolist()
        corners = [(round(low[0]), round(low[1])), (round(high[0]), round(high[1]))]
        if rng.random() < 0.6:
            cv2.rectangle(out, corners[0], corners[1], colour, -1)
        else:
            centre = ((corners[0][0] + corners[1][0]) // 2, (corners[0][1] + corners[1][1]) // 2)
            axes = (max(1, (corners[1][0] - corners[0][0]) // 2), max(1, (corners[1][1] - corners[0][1]) // 2))
            cv2.ellipse(out, centre, axes, rng.uniform(-30, 30), 0, 360, colour, -1)
    return out
