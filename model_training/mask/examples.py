"""Batches of crops with and without masks, drawn anew for every step."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model_training.data.views import photographed_again
from model_training.mask.occluders import with_mask, with_something_else
from service.contract import CROP_SIDE_PX

Crop = NDArray[np.uint8]

_FRAMED = 0.25


class ExamplePainter:
    """Draws batches, half of them masked.

    Every collection of a kind has the same share of the batch, whatever its size. Bare faces of all collections also
    serve as faces to draw masks on, so that nothing but the mask tells the kinds apart.

    Args:
        masked, bare: (n, 112, 112, 3) uint8 BGR crops of each collection.
        drawn: share of the masked crops that are bare faces with a mask drawn on.
        covered: share of the bare crops with something else before the face.
    """

    def __init__(
        self, masked: Sequence[NDArray[np.uint8]], bare: Sequence[NDArray[np.uint8]], *, drawn: float, covered: float
    ) -> None:
        self._masked, self._bare = list(masked), list(bare)
        self._drawn, self._covered = drawn, covered

    def batch(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """(count, 112, 112, 3) uint8 BGR crops and (count,) float32: 1 for those with a mask."""
        labels = (np.arange(count) % 2).astype(np.float32)
        crops = [self._one(bool(label), rng) for label in labels]
        return np.stack(crops), labels

    def _one(self, masked: bool, rng: np.random.Generator) -> Crop:
        if masked and rng.random() >= self._drawn:
            crop = _any(self._masked, rng)
        else:
            crop = _any(self._bare, rng)
            if masked:
                crop = with_mask(crop, rng)
            elif rng.random() < self._covered:
                crop = with_something_else(crop, rng)
            if rng.random() < _FRAMED:
                crop = framed(crop, rng)
        return photographed_again(crop, rng)


def framed(crop: Crop, rng: np.random.Generator) -> Crop:
    """As from a picture that ends close to the face, which leaves black around it."""
    centre = (CROP_SIDE_PX / 2 + rng.normal(0, 3), CROP_SIDE_PX / 2 + rng.normal(0, 3))
    size = tuple(rng.uniform(90, 135, 2))
    corners = cv2.boxPoints((centre, size, rng.normal(0, 8)))
    inside = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillConvexPoly(inside, np.round(corners).astype(np.int32), 1)
    return np.asarray(crop * inside[..., None], dtype=np.uint8)


def _any(collections: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> Crop:
    crops = collections[int(rng.integers(len(collections)))]
    return np.asarray(crops[int(rng.integers(len(crops)))])
