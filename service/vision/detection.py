"""Faces and five landmarks, by any network with YuNet's inputs and outputs, run through OpenCV."""

from __future__ import annotations

import queue
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.contract import ContractError
from service.domain import Box, Detection

# YuNet's coarsest map has stride 32; sides that are multiples of it need no padding inside OpenCV.
_STRIDE = 32


class YuNetDetector:
    """Detector port over `cv2.FaceDetectorYN`; runs the bundled network or the official YuNet file.

    OpenCV's detector holds state between setting its size and running, so concurrent callers each borrow one of
    `instances` from a pool.

    Args:
        model_path: ONNX file with YuNet's twelve outputs.
        score_threshold: faces below this confidence are dropped.
        max_side_px: larger pictures are averaged down to this before the search.
        max_faces: at most this many faces are returned, best first.

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
        instances: int = 2,
    ) -> None:
        self._max_side_px = max_side_px
        self._max_faces = max_faces
        self._pool: queue.SimpleQueue[cv2.FaceDetectorYN] = queue.SimpleQueue()
        # OpenCV 5 warns at every creation that its graph engine takes no target; there is nothing to act on.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        for _ in range(instances):
            try:
                network = cv2.FaceDetectorYN.create(
                    str(model_path), "", (320, 320), score_threshold, nms_threshold, 5000
                )
            except cv2.error as error:
                raise ContractError(f"{model_path} is not a face detector with YuNet's outputs") from error
            self._pool.put(network)

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
        padded = _pad_to_stride(searched)
        network = self._pool.get()
        try:
            network.setInputSize((padded.shape[1], padded.shape[0]))
            rows: NDArray[np.float32] | None = network.detect(padded)[1]  # type: ignore[assignment]
        finally:
            self._pool.put(network)
        if rows is None:
            return []
        back = np.array([width / searched.shape[1], height / searched.shape[0]], dtype=np.float32)
        kept = [row for row in rows if np.isfinite(row).all() and row[2] > 0 and row[3] > 0]
        kept.sort(key=lambda row: float(row[14]), reverse=True)
        return [_to_detection(row, back) for row in kept[: self._max_faces]]


def _pad_to_stride(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    bottom, right = -height % _STRIDE, -width % _STRIDE
    if not bottom and not right:
        return image
    return np.asarray(
        cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0)), dtype=np.uint8
    )


def _to_detection(row: NDArray[np.float32], back: NDArray[np.float32]) -> Detection:
    x, y, width, height = (float(v) for v in row[:4] * np.tile(back, 2))
    landmarks = (row[4:14].reshape(5, 2) * back).astype(np.float32)
    return Detection(box=Box(x, y, width, height), landmarks=landmarks, score=float(np.clip(row[14], 0.0, 1.0)))
