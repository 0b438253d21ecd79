"""Training canvases: labelled pictures scaled, turned, cropped and put together, with faceless filling between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from model_training.data.faces import DataError
from model_training.detector import negatives, photometry
from model_training.detector.geometry import (
    ROW_COLUMNS,
    Affine,
    Kind,
    Rows,
    Window,
    clip_to_window,
    similarity,
    transform_rows,
)
from model_training.detector.labels import FACELESS, LabelledPicture

Image = NDArray[np.uint8]

# One cell's answer: left, top, right, bottom, five landmarks as x, y pairs, the cell's place in `network.cell_grid`,
# and the answer's quality in (0, 1]; an empty row has quality 0.
ANSWER_COLUMNS = 16
# Answers a canvas can hold; YuNet gives about nine a face.
MAX_ANSWERS = 128

# Labels a canvas can hold; a draw with more is drawn again, since a face left out would be taught as background.
MAX_ROWS = 24

# The teacher's score from which on its face is a fact; below, the region is ignored.
_SURE_SCORE = 0.65
_SMALLEST_FACE_PX = 13.0
_MOST_ENLARGED = 3.5
# The service scales no picture that is small enough; those that are larger come scaled down to fit.
_NATURAL_SHARE = 0.8


class Canvas(NamedTuple):
    """A canvas and what is known of it; or n of them, each array with a first axis more.

    Attributes:
        pixels: (side, side, 3) uint8 BGR.
        rows: (24, 15) float32 labels, empty rows last, see `geometry.ROW_COLUMNS`.
        answers: (128, 16) float32, what a patient teacher's cells say of faces of the kind `TAUGHT`, empty rows last.
    """

    pixels: Image
    rows: Rows
    answers: NDArray[np.float32]


class CanvasPainter:
    """Draws canvases from labelled pictures.

    Args:
        pictures: what to draw from; those of the collection `FACELESS` only as background.
        shares: weight of each collection; one that is not named takes no part.
        side_px: of the square canvases, a multiple of 32.
        served: share of canvases that show a whole picture as the service shows it to the network.

    Raises:
        DataError: no picture belongs to a collection with a positive weight.
    """

    # Labels are carried over from the picture, so they hold for the mirrored canvas as well as for the canvas.
    patient = False

    def __init__(
        self, pictures: Sequence[LabelledPicture], shares: Mapping[str, float], side_px: int, served: float = 0.4
    ) -> None:
        self.side_px = side_px
        self._served_share = served
        groups = {name: [p for p in pictures if p.source == name] for name, share in shares.items() if share > 0}
        groups = {name: group for name, group in groups.items() if group}
        if not groups:
            raise DataError(f"no labelled picture belongs to any of {sorted(shares)}")
        self._groups = list(groups.values())
        # A few photos are cut up again and again, so they are decoded once.
        self._faceless_photos = [_read(p) for p in pictures if p.source == FACELESS]
        weights = np.array([shares[name] for name in groups])
        self._weights = weights / weights.sum()

    def draw(self, rng: np.random.Generator) -> Canvas:
        """One canvas, without answers."""
        while True:
            canvas, rows = self._compose(rng)
            if len(rows) <= MAX_ROWS:
                break
        for chance, change in ((0.1, photometry.softened), (0.1, photometry.noisy), (0.2, photometry.compressed)):
            if rng.random() < chance:
                canvas = change(canvas, rng)
        padded = np.zeros((MAX_ROWS, ROW_COLUMNS), dtype=np.float32)
        padded[: len(rows)] = rows
        return Canvas(canvas, padded, np.zeros((MAX_ANSWERS, ANSWER_COLUMNS), dtype=np.float32))

    def _compose(self, rng: np.random.Generator) -> tuple[Image, Rows]:
        side = self.side_px
        canvas = np.zeros((side, side, 3), dtype=np.uint8)
        everything = (0, 0, side, side)
        if rng.random() < self._served_share:
            return canvas, self._served(canvas, rng)
        kind = rng.random()
        if kind < 0.37:
            return canvas, self._face(canvas, everything, (_SMALLEST_FACE_PX, 1.05 * side), rng)
        if kind < 0.63:
            self._faceless(canvas, everything, rng)
            return canvas, np.zeros((0, ROW_COLUMNS), dtype=np.float32)
        cuts = [0, *_cuts(side, 2 if kind < 0.92 else 3, rng), side]
        rows_cuts = [0, *_cuts(side, len(cuts) - 1, rng), side]
        found = []
        for top, bottom in pairwise(rows_cuts):
            for left, right in pairwise(cuts):
                window = (left, top, right, bottom)
                if rng.random() < 0.3:
                    self._faceless(canvas, window, rng)
                else:
                    largest = max(1.5 * _SMALLEST_FACE_PX, 0.9 * min(right - left, bottom - top))
                    found.append(self._face(canvas, window, (_SMALLEST_FACE_PX, largest), rng))
        return canvas, np.concatenate([np.zeros((0, ROW_COLUMNS), dtype=np.float32), *found])

    def _picture(self, rng: np.random.Generator) -> tuple[Image, Rows, NDArray[np.float32]]:
        group = self._groups[int(rng.choice(len(self._groups), p=self._weights))]
        chosen = group[int(rng.integers(len(group)))]
        rows = chosen.faces.copy()
        rows[:, 14] = np.where(chosen.faces[:, 14] >= _SURE_SCORE, Kind.FACE, Kind.IGNORE)
        return _read(chosen), rows, chosen.faces[:, :4]

    def _served(self, canvas: Image, rng: np.random.Generator) -> Rows:
        """As the service shows pictures to the network: upright, whole, padded black at the right and the bottom."""
        image, rows, _ = self._picture(rng)
        fits = self.side_px / max(image.shape[:2])
        natural = 2 ** np.floor(np.log2(max(fits, 1.0)))
        scale = float(natural if fits >= 1 and rng.random() < _NATURAL_SHARE else fits * rng.uniform(0.7, 1.0))
        matrix = similarity(scale, 0, (-0.5, -0.5), (-0.5, -0.5))
        height, width = (min(self.side_px, round(v * scale)) for v in image.shape[:2])
        return self._paint(canvas, (0, 0, width, height), image, rows, matrix, rng=rng)

    def _face(self, canvas: Image, window: Window, sides: tuple[float, float], rng: np.random.Generator) -> Rows:
        """A picture moved so that one of its faces has a random size, tilt and place in the window."""
        image, rows, boxes = self._picture(rng)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        sure = np.flatnonzero(rows[:, 14] == Kind.FACE)
        candidates = sure if len(sure) else np.arange(len(rows))
        main = int(candidates[areas[candidates].argmax()] if rng.random() < 0.7 else rng.choice(candidates))
        side = np.exp(rng.uniform(*np.log(sides)))
        scale = min(side / float(np.sqrt(areas[main])), _MOST_ENLARGED)
        angle = rng.normal(0, 4) if rng.random() < 0.5 else rng.uniform(-25, 25)
        low, high = np.array(window[:2], dtype=float), np.array(window[2:], dtype=float)
        if rng.random() < 0.85:
            # The whole face is mostly in view; where it is larger than the window, its centre is in the middle third.
            room = np.minimum(0.5 * side, (high - low) / 3)
            low, high = low + room, high - room
        centre = boxes[main].reshape(2, 2).mean(axis=0)
        matrix = similarity(scale, angle, centre, rng.uniform(low, high))
        self._fill_border(canvas, window, image, boxes, rng)
        return self._paint(canvas, window, image, rows, matrix, rng=rng)

    def _fill_border(
        self, canvas: Image, window: Window, image: Image, boxes: NDArray[np.float32], rng: np.random.Generator
    ) -> None:
        """What lies outside the picture: black, a colour, a texture, or more of the same photo."""
        left, top, right, bottom = window
        kind = rng.random()
        if kind < 0.3:
            return
        if kind < 0.5:
            canvas[top:bottom, left:right] = rng.integers(0, 256, 3, dtype=np.uint8)
            return
        patch = negatives.faceless_patch(image, boxes, rng) if kind < 0.75 else None
        shape = (bottom - top, right - left)
        canvas[top:bottom, left:right] = (
            negatives.texture(*shape, rng)
            if patch is None
            else negatives.filled_with(patch, *shape, tiled=rng.random() < 0.4)
        )

    def _paint(
        self, canvas: Image, window: Window, image: Image, rows: Rows, matrix: Affine, *, rng: np.random.Generator
    ) -> Rows:
        """Warp a picture into a window of the canvas; returns the labels that are left of it."""
        if rng.random() < 0.15:
            image = photometry.occluded(image, rows, rng)
        if rng.random() < 0.65:
            image = photometry.changed_light(image, rng)
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        warp = matrix
        if scale < 0.6:
            # A bilinear warp skips pixels when it shrinks; averaging first keeps small faces as a camera shows them.
            size = tuple(max(1, round(v * scale)) for v in image.shape[1::-1])
            step = np.array(image.shape[1::-1]) / size
            warp = np.column_stack([matrix[:, :2] * step, matrix[:, 2] + matrix[:, :2] @ (0.5 * step - 0.5)])
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        if rng.random() < 0.12:
            image = photometry.softened(image, rng)
        left, top, right, bottom = window
        local = warp.copy()
        local[:, 2] -= (left, top)
        target = np.ascontiguousarray(canvas[top:bottom, left:right])
        cv2.warpAffine(
            np.ascontiguousarray(image),
            local,
            (right - left, bottom - top),
            dst=target,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
        canvas[top:bottom, left:right] = target
        return clip_to_window(transform_rows(rows, matrix), window)

    def _faceless(self, canvas: Image, window: Window, rng: np.random.Generator) -> None:
        """Fill a window of the canvas with something that is not a face."""
        left, top, right, bottom = window
        shape = (bottom - top, right - left)
        patch, tileable = self._faceless_patch(rng)
        if patch is None:
            filling = negatives.texture(*shape, rng)
        else:
            filling = negatives.filled_with(patch, *shape, tiled=tileable and rng.random() < 0.4)
        if patch is not None and rng.random() < 0.15:
            share = rng.uniform(0.4, 0.8)
            filling = np.asarray(
                cv2.addWeighted(filling, share, negatives.texture(*shape, rng), 1 - share, 0), dtype=np.uint8
            )
        canvas[top:bottom, left:right] = photometry.changed_light(filling, rng) if rng.random() < 0.5 else filling

    def _faceless_patch(self, rng: np.random.Generator) -> tuple[Image | None, bool]:
        """Photo without a face, surroundings of a face, part of one or one in disorder; None for a texture.

        Also whether it may be tiled by reflection: a part of a face may not, since one eye would become a pair.
        """
        kind = rng.random()
        if kind < 0.2:
            return None, True
        if kind < 0.45 and self._faceless_photos:
            photo = self._faceless_photos[int(rng.integers(len(self._faceless_photos)))]
            return negatives.photo_patch(photo, rng), True
        image, _, boxes = self._picture(rng)
        if kind < 0.7:
            return negatives.faceless_patch(image, boxes, rng), True
        x0, y0, x1, y1 = np.clip(boxes[0], 0, [*image.shape[1::-1]] * 2).astype(int)
        if min(x1 - x0, y1 - y0) < 16:
            return None, True
        face = image[y0:y1, x0:x1]
        return (negatives.face_part(face, rng) if kind < 0.87 else negatives.scrambled(face, rng)), False


def _read(picture: LabelledPicture) -> Image:
    image = cv2.imread(str(picture.path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{picture.path} cannot be read")
    return np.asarray(image, dtype=np.uint8)


def _cuts(side: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Where to cut a side into parts of uneven but useful length."""
    even = side / parts
    return [round(even * (index + rng.uniform(-0.3, 0.3))) for index in range(1, parts)]
