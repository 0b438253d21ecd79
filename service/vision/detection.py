"""Faces and five landmarks, by any network with YuNet's inputs and outputs, run through onnxruntime."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import ContractError, sha256_of_file
from service.domain import Box, Detection
from service.vision.runtime import onnxruntime, session_options

# The network's levels, in pixels a cell; sides that are multiples of the coarsest give whole cells on all of them.
_STRIDES = (8, 16, 32)
_HEADS = ("cls", "obj", "bbox", "kps")
_OUTPUTS = [f"{head}_{stride}" for head in _HEADS for stride in _STRIDES]
# Wider than any picture; the bound keeps the exponential of a wild answer finite.
_LARGEST_LOG_SIDE = 12.0
_MOST_CANDIDATES = 5_000
# To be raised with every change of this file that changes what is found.
_REVISION = 1


class YuNetDetector:
    """Detector port: runs the bundled network or the official YuNet file.

    Cells are decoded and suppressed as `cv2.FaceDetectorYN` does it; onnxruntime takes less than half of the time that
    OpenCV's own engine takes for the same network.

    Args:
        model_path: ONNX file with YuNet's twelve outputs.
        score_threshold: faces below this confidence are dropped.
        nms_threshold: of two faces that overlap by more (intersection over union), the less confident is dropped.
        max_side_px: larger pictures are averaged down to this before the search.
        max_faces: at most this many faces are returned, best first.

    Attributes:
        identity: see the port.

    Raises:
        ContractError: the file cannot be loaded.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        score_threshold: float = 0.7,
        nms_threshold: float = 0.3,
        max_side_px: int = 640,
        max_faces: int = 100,
    ) -> None:
        self._score_threshold, self._nms_threshold = score_threshold, nms_threshold
        self._max_side_px, self._max_faces = max_side_px, max_faces
        options = session_options()
        # A plan of memory for every size of picture would be kept for good.
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime's own exceptions have no common class that it shows.
            raise ContractError(f"{model_path} is not a face detector with YuNet's outputs") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or not {output.name for output in self._session.get_outputs()}.issuperset(_OUTPUTS):
            raise ContractError(f"{model_path} is not a face detector with YuNet's outputs")
        self._input = inputs[0].name
        decisive = [_REVISION, score_threshold, nms_threshold, max_side_px, max_faces]
        self.identity = f"{sha256_of_file(model_path)}:{':'.join(map(str, decisive))}"

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Find faces.

        Args:
            image: (height, width, 3) uint8, BGR.

        Returns:
            Faces in pixels of `image`, most confident first; empty when there are none.
        """
        height, width = image.shape[:2]
        scale = min(1.0, self._max_side_px / max(height, width))
        searched = image
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            searched = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        rows = self._rows(_network_input(searched))
        found = [_to_detection(row) for row in rows]
        if searched is image:
            return found
        return [face.magnified(width / searched.shape[1], height / searched.shape[0]) for face in found]

    def _rows(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 15) float32, best first: left, top, width, height, five landmarks as x, y, and the score."""
        answers = dict(zip(_OUTPUTS, self._session.run(_OUTPUTS, {self._input: pixels}), strict=True))
        levels = [
            self._decoded([answers[f"{head}_{stride}"][0] for head in _HEADS], pixels.shape[3] // stride, stride)
            for stride in _STRIDES
        ]
        rows = np.concatenate(levels)
        if len(rows) > 1:
            boxes, scores = rows[:, :4].tolist(), rows[:, 14].tolist()
            kept = cv2.dnn.NMSBoxes(boxes, scores, self._score_threshold, self._nms_threshold, 1.0, _MOST_CANDIDATES)
            rows = rows[np.asarray(kept, dtype=np.int64).ravel()]
        order = np.argsort(-rows[:, 14], kind="stable")[: self._max_faces]
        return np.asarray(rows[order], dtype=np.float32)

    def _decoded(self, heads: list[NDArray[np.float32]], cells_a_row: int, stride: int) -> NDArray[np.float32]:
        """The cells of one level that show a face; rows as in `_rows`, in no order.

        Source: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector" (2023), as OpenCV reads it.
        """
        cls, obj, boxes, points = heads
        scores = np.sqrt(np.clip(cls[:, 0], 0.0, 1.0) * np.clip(obj[:, 0], 0.0, 1.0))
        found = np.flatnonzero(scores >= self._score_threshold)
        rows = np.empty((len(found), 15), dtype=np.float32)
        corners = np.stack([found % cells_a_row, found // cells_a_row], axis=1).astype(np.float32)
        centres = (boxes[found, :2] + corners) * stride
        sides = np.exp(np.minimum(boxes[found, 2:4], _LARGEST_LOG_SIDE)) * stride
        rows[:, 0:2], rows[:, 2:4] = centres - sides / 2, sides
        rows[:, 4:14] = (points[found] + np.tile(corners, 5)) * stride
        rows[:, 14] = scores[found]
        return rows[np.isfinite(rows).all(axis=1) & (sides > 0).all(axis=1)]


def _network_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(1, 3, height, width) float32, BGR 0..255; black behind the right and the lower edge makes whole cells."""
    height, width = image.shape[:2]
    coarsest = _STRIDES[-1]
    pixels = np.zeros((1, 3, height + -height % coarsest, width + -width % coarsest), dtype=np.float32)
    pixels[0, :, :height, :width] = image.transpose(2, 0, 1)
    return pixels


def _to_detection(row: NDArray[np.float32]) -> Detection:
    x, y, width, height = (float(value) for value in row[:4])
    return Detection(box=Box(x, y, width, height), landmarks=row[4:14].reshape(5, 2), score=float(row[14]))
