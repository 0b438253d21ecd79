"""The five landmarks of a mean head in three dimensions, measured on many pictures of different heads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.domain import Detection
from service.vision.detection import YuNetDetector

_MIN_EYE_DISTANCE_PX = 8.0
# Offset of the nose in eye distances: under the first a head is frontal, over the second it is turned.
_FRONTAL, _TURNED = 0.1, 0.15
# Nose depths that are tried, in eye distances.
_DEPTHS = np.arange(0.2, 0.8, 0.002)


class HeadError(ValueError):
    """The landmarks do not show heads from enough sides."""


def main_landmarks(pictures: Iterable[Path], detector: YuNetDetector) -> NDArray[np.float32]:
    """Landmarks of the largest face of each picture that has one: (n, 5, 2) float32, pixels."""
    found = []
    for path in pictures:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        faces = detector.detect(np.asarray(image, dtype=np.uint8)) if image is not None else []
        if faces:
            found.append(max(faces, key=_area).landmarks)
    return np.stack(found) if found else np.empty((0, 5, 2), np.float32)


def measure_head(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean head that these landmarks are pictures of.

    Heights and widths are medians over the frontal faces. Depths come from the turned ones, under scaled orthographic
    projection and whatever their pitch: by a yaw `a` the eye distance shrinks to `cos a` of itself and the nose,
    `d` before the middle of eyes and mouth, moves by `d sin a`, so that in eye distances its offset is `d tan a` while
    the height of the face grows by `1 / cos a`. `d` is what explains the heights best; the mouth's depth to it is as
    its offset to the nose's.

    Args:
        landmarks: (n, 5, 2) float, pixels, in the contract's order.

    Returns:
        (5, 3) float64: right, down, towards the viewer, in eye distances, symmetric, the middle of the eyes at 0.

    Raises:
        HeadError: fewer than 10 faces are frontal, or fewer than 10 turned.
    """
    along, below = _in_eye_distances(np.asarray(landmarks, dtype=np.float64))
    mouth_offset, mouth_height = along[:, 3:].mean(axis=1), below[:, 3:].mean(axis=1)
    nose_offset = along[:, 2] - mouth_offset / 2
    frontal, turned = np.abs(nose_offset) < _FRONTAL, np.abs(nose_offset) > _TURNED
    if frontal.sum() < 10 or turned.sum() < 10:
        raise HeadError(f"{frontal.sum()} faces are frontal and {turned.sum()} turned; 10 of each are needed")
    half_mouth = float(np.median(along[frontal, 4] - along[frontal, 3])) / 2
    nose_height, height = float(np.median(below[frontal, 2])), float(np.median(mouth_height[frontal]))
    # Least absolute deviations: profiles that the detector got wrong must not decide.
    unexplained = [np.abs(1 / mouth_height - 1 / height / np.hypot(1, nose_offset / depth)).mean() for depth in _DEPTHS]
    nose_depth = float(_DEPTHS[int(np.argmin(unexplained))])
    side = np.sign(nose_offset[turned])
    mouth_depth = nose_depth * float((side * mouth_offset[turned]).sum() / np.abs(nose_offset[turned]).sum())
    return np.array(
        [
            [-0.5, 0.0, 0.0],
            [0.5, 0.0, 0.0],
            [0.0, nose_height, nose_depth + mouth_depth / 2],
            [-half_mouth, height, mouth_depth],
            [half_mouth, height, mouth_depth],
        ]
    )


def _in_eye_distances(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 5) places along and below the line of the eyes, from its middle, of the faces that are large enough."""
    eyes = points[:, 1] - points[:, 0]
    distance = np.hypot(*eyes.T)
    points, eyes, distance = (each[distance >= _MIN_EYE_DISTANCE_PX] for each in (points, eyes, distance))
    placed = (points - (points[:, :1] + points[:, 1:2]) / 2) / distance[:, None, None]
    right = eyes / distance[:, None]
    down = np.stack([-right[:, 1], right[:, 0]], axis=1)
    return np.einsum("nkc,nc->nk", placed, right), np.einsum("nkc,nc->nk", placed, down)


def _area(face: Detection) -> float:
    return face.box.width * face.box.height
