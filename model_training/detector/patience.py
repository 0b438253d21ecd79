"""Canvases labelled by a patient teacher: it looks at the very pixels that the student will see.

Moved by a few pixels or mirrored, YuNet puts the landmarks of a 70 px face elsewhere by 7 to 8 % of the eye distance.
Labels carried over from the picture to a canvas therefore disagree with what the teacher would say there, and no
student can learn from them to agree with it better than that.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from model_training.detector.canvases import Image
from model_training.detector.geometry import Kind, Rows, mirror_rows
from model_training.detector.labels import Faces, box_iou, detected_faces
from service.vision.detection import YuNetDetector

# An answer of the teacher that overlaps a face's carried label by this much is about that face.
_SAME_FACE_IOU = 0.5


class Painter(Protocol):
    """What draws canvases for a bank."""

    @property
    def side_px(self) -> int:
        """Side of the square canvases."""

    @property
    def patient(self) -> bool:
        """Whether the labels hold for exactly the canvas as drawn, so that mirroring it would spoil them."""

    def draw(self, rng: np.random.Generator) -> tuple[Image, Rows]:
        """One canvas (side, side, 3) uint8 BGR and its (24, 15) float32 labels, see `geometry.ROW_COLUMNS`."""


class PatientPainter:
    """Draws with another painter, mirrors half of the canvases, then lets the teacher say where each face is.

    Args:
        painter: what draws.
        teacher: at a low score threshold; shared by the threads that draw.
    """

    patient = True

    def __init__(self, painter: Painter, teacher: YuNetDetector) -> None:
        self._painter = painter
        self._teacher = teacher

    @property
    def side_px(self) -> int:
        """Side of the square canvases."""
        return self._painter.side_px

    def draw(self, rng: np.random.Generator) -> tuple[Image, Rows]:
        """See `Painter.draw`."""
        canvas, rows = self._painter.draw(rng)
        if rng.random() < 0.5:
            canvas, rows = np.ascontiguousarray(canvas[:, ::-1]), mirror_rows(rows, self.side_px)
        return canvas, retaught(rows, detected_faces(self._teacher, canvas))


def retaught(rows: Rows, answers: Faces) -> Rows:
    """Labels whose faces have the place that the teacher gives them on this canvas.

    A face that the teacher misses here keeps its carried label: it is a face all the same, and the student should find
    more than the teacher does. Regions to ignore stay as they are.

    Args:
        rows: (n, 15) float32, see `geometry.ROW_COLUMNS`.
        answers: (m, 15) float32, what the teacher finds, see `labels.FACE_COLUMNS`.

    Returns:
        (n, 15) float32.
    """
    taught = rows.copy()
    faces = np.flatnonzero(rows[:, 14] == Kind.FACE)
    if not len(faces) or not len(answers):
        return taught
    overlap = box_iou(rows[faces], answers)
    mates = overlap.argmax(axis=1)
    seen = overlap.max(axis=1) >= _SAME_FACE_IOU
    taught[faces[seen], :14] = answers[mates[seen], :14]
    return taught
