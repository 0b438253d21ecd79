"""Canvases labelled by a patient teacher: it looks at the very pixels that the student will see, and speaks by cell.

Moved by a few pixels or mirrored, YuNet puts the landmarks of a 70 px face elsewhere by 7 to 8 % of the eye distance.
Labels carried over from the picture to a canvas disagree with what the teacher would say there by that much, and no
student can learn from them to agree with it better. Besides, YuNet answers for faces of up to about 100 px from its
finest cells; a student whose coarser cells answer for them sees too little of where the face lies on the grid.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from model_training.detector.canvases import ANSWER_COLUMNS, MAX_ANSWERS, Canvas, Image
from model_training.detector.export import output_names
from model_training.detector.geometry import Kind, Rows, mirror_rows
from model_training.detector.labels import box_iou
from model_training.detector.network import STRIDES, cell_grid, decode_boxes, decode_landmarks
from service.contract import ContractError

# An answer of the teacher that overlaps a face's carried label by this much is about that face.
_SAME_FACE_IOU = 0.5
# The teacher sees a face here when its best cell scores this much; of the others, those count that come near the best.
_SEEN_SCORE = 0.3
_SHARE_OF_BEST = 0.25


class Painter(Protocol):
    """What draws canvases for a bank."""

    @property
    def side_px(self) -> int:
        """Side of the square canvases."""

    @property
    def patient(self) -> bool:
        """Whether the labels hold for exactly the canvas as drawn, so that mirroring it would spoil them."""

    def draw(self, rng: np.random.Generator) -> Canvas:
        """One canvas."""


class CellTeacher:
    """A network with YuNet's outputs, asked cell by cell; any number of threads may ask.

    Raises:
        ContractError: the file cannot be loaded.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._local = threading.local()
        self._network()

    def answers(self, image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What every cell says of a square picture.

        Args:
            image: (side, side, 3) uint8 BGR, side a multiple of 32.

        Returns:
            (cells,) float32 scores in [0, 1], and (cells, 14) float32 box (left, top, right, bottom) and five landmarks
            in pixels; cells in the order of `network.cell_grid`.
        """
        network, side = self._network(), image.shape[0]
        network.setInput(np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32), "input")
        maps = dict(zip(output_names(), network.forward(output_names()), strict=True))
        cls, obj, boxes, points = (
            np.concatenate([maps[f"{head}_{stride}"].reshape(-1, channels) for stride in STRIDES])
            for head, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        )
        cells, strides = cell_grid(side, side)
        place = np.concatenate(
            [
                decode_boxes(torch.from_numpy(boxes), cells, strides).numpy(),
                decode_landmarks(torch.from_numpy(points), cells, strides).flatten(-2).numpy(),
            ],
            axis=1,
        )
        return np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))[:, 0], place

    def _network(self) -> cv2.dnn.Net:
        if not hasattr(self._local, "network"):
            try:
                self._local.network = cv2.dnn.readNetFromONNX(str(self._model))
            except cv2.error as error:
                raise ContractError(f"{self._model} is not a face detector with YuNet's outputs") from error
        network: cv2.dnn.Net = self._local.network
        return network


class PatientPainter:
    """Draws with another painter, mirrors half of the canvases, then lets the teacher say where each face is.

    Args:
        painter: what draws.
        teacher: shared by the threads that draw.
    """

    patient = True

    def __init__(self, painter: Painter, teacher: CellTeacher) -> None:
        self._painter = painter
        self._teacher = teacher

    @property
    def side_px(self) -> int:
        """Side of the square canvases."""
        return self._painter.side_px

    def draw(self, rng: np.random.Generator) -> Canvas:
        """See `Painter.draw`."""
        canvas = self._painter.draw(rng)
        if rng.random() < 0.5:
            mirrored = np.ascontiguousarray(canvas.pixels[:, ::-1])
            canvas = canvas._replace(pixels=mirrored, rows=mirror_rows(canvas.rows, self.side_px))
        rows, answers = retaught(canvas.rows, *self._teacher.answers(canvas.pixels))
        return Canvas(canvas.pixels, rows, answers)


def retaught(rows: Rows, scores: NDArray[np.float32], places: NDArray[np.float32]) -> tuple[Rows, NDArray[np.float32]]:
    """Replace the labels of the faces that the teacher sees by what its cells say of them.

    The best cell's answer is what the teacher reports, so all cells of a face learn that one: about seven of them score
    within 2 % of the best, their own answers differ by 6 % of the eye distance, and which of them wins is close to
    chance. An answer's quality is its cell's score relative to the best, so that the student uses the same cells
    as the teacher and yet is sure of a face at which the teacher hesitates. A face that the teacher misses here keeps
    its carried label: it is a face all the same. Regions to ignore stay as they are.

    Args:
        rows: (n, 15) float32, see `geometry.ROW_COLUMNS`.
        scores: (cells,) float32 in [0, 1].
        places: (cells, 14) float32, as `CellTeacher.answers` gives them.

    Returns:
        (n, 15) float32 with faces turned into taught ones, and (128, 16) float32, see `canvases.ANSWER_COLUMNS`.
    """
    taught = rows.copy()
    answers = np.zeros((MAX_ANSWERS, ANSWER_COLUMNS), dtype=np.float32)
    faces = np.flatnonzero(rows[:, 14] == Kind.FACE)
    cells = np.flatnonzero(scores >= _SEEN_SCORE * _SHARE_OF_BEST)
    if not len(faces) or not len(cells):
        return taught, answers
    overlap = box_iou(rows[faces], places[cells])
    owner = np.where(overlap.max(axis=0) >= _SAME_FACE_IOU, overlap.argmax(axis=0), -1)
    filled = 0
    for index, face in enumerate(faces):
        own = cells[owner == index]
        if not len(own) or scores[own].max() < _SEEN_SCORE:
            continue
        winner = own[scores[own].argmax()]
        best = scores[winner]
        own = own[scores[own] >= _SHARE_OF_BEST * best]
        # A face whose answers do not all fit keeps its label: half of them would teach that the rest are background.
        if filled + len(own) > MAX_ANSWERS:
            continue
        taught[face, 14] = Kind.TAUGHT
        answers[filled : filled + len(own), :14] = places[winner]
        answers[filled : filled + len(own), 14] = own
        answers[filled : filled + len(own), 15] = scores[own] / best
        filled += len(own)
    return taught, answers
