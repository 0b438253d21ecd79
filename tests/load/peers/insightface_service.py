"""A FastAPI service of the `insightface` package: `FaceAnalysis`, its recognition class, a NumPy gallery.

Its model packs have to be downloaded, under terms of their own. Instead detection is YuNet behind the interface that
`FaceAnalysis` expects, at the picture's own size, which is quicker than the pack's SCRFD at 640 x 640; recognition is
any ArcFace-like ONNX file. It runs in the peers' environment.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from fastapi import FastAPI
from insightface.app import FaceAnalysis
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from serving import Analysed, Found, application, arguments, central_first, serve

# In the middle of what its users take for ArcFace models.
_THRESHOLD = 0.4
_DETECTION_THRESHOLD = 0.5


class YuNet:
    """A `det_model` for `FaceAnalysis`."""

    def __init__(self, path: str) -> None:
        self._path = path
        # The detector keeps its input size, so that each thread needs one.
        self._own = threading.local()

    def detect(self, img: np.ndarray, max_num: int = 0, metric: str = "default") -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n, 5): corners and score; landmarks (n, 5, 2)."""
        if not hasattr(self._own, "detector"):
            self._own.detector = cv2.FaceDetectorYN.create(self._path, "", (0, 0), _DETECTION_THRESHOLD)
        self._own.detector.setInputSize((img.shape[1], img.shape[0]))
        rows = self._own.detector.detect(img)[1]
        rows = np.empty((0, 15), np.float32) if rows is None else rows
        boxes = np.column_stack([rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 14]])
        return boxes, rows[:, 4:14].reshape(-1, 5, 2)


def analysis() -> FaceAnalysis:
    """As its constructor would put it together of a model pack."""
    network, threads = os.environ["PEER_RECOGNITION"], int(os.environ["PEER_THREADS"])
    session = None
    if threads:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        cv2.setNumThreads(threads)
    recognition = ArcFaceONNX(network, session)
    if os.environ["PEER_RAW"] == "1":
        # The network takes 0..255 and has no operators of that name in front, by which the package would tell.
        recognition.input_mean, recognition.input_std = 0.0, 1.0
    recognition.prepare(-1)
    faces = FaceAnalysis.__new__(FaceAnalysis)
    faces.det_model = YuNet(os.environ["PEER_DETECTOR"])
    faces.models = {"detection": faces.det_model, "recognition": recognition}
    faces.addons, faces.liveness_mode = {}, "normal"
    return faces


class Analyser:
    """Bytes of a picture to its faces."""

    def __init__(self) -> None:
        self._analysis = analysis()

    def __call__(self, content: bytes) -> Analysed:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        height, width = image.shape[:2]
        faces = []
        for face in self._analysis.get(image):
            left, top, right, bottom = face.bbox
            faces.append(Found((left, top, right - left, bottom - top), face.normed_embedding))
        return Analysed(width, height, central_first(faces, width, height))


def app() -> FastAPI:
    """For uvicorn."""
    return application(Analyser(), lambda gallery, probe: gallery @ probe, _THRESHOLD)


def main() -> None:
    """Options as environment variables too, which workers inherit."""
    given = arguments(("--detector", Path), ("--recognition", Path), ("--threads", int))
    os.environ["PEER_DETECTOR"], os.environ["PEER_RECOGNITION"] = str(given.detector), str(given.recognition)
    os.environ["PEER_RAW"], os.environ["PEER_THREADS"] = str(int(given.raw)), str(given.threads)
    serve("insightface_service:app", Analyser(), given)


if __name__ == "__main__":
    main()
