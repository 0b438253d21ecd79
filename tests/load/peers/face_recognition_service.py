"""A FastAPI service of the `face_recognition` package (dlib): its own calls and defaults, HOG, a NumPy gallery.

It runs in the peers' environment.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import face_recognition
import numpy as np
from fastapi import FastAPI
from serving import Analysed, Found, application, central_first, serve

# The package's own `tolerance`, a distance.
_TOLERANCE = 0.6


def analyse(content: bytes) -> Analysed:
    """Bytes of a picture to its faces."""
    image = face_recognition.load_image_file(io.BytesIO(content))
    height, width = image.shape[:2]
    places = face_recognition.face_locations(image)
    vectors = face_recognition.face_encodings(image, places)
    faces = [
        Found((left, top, right - left, bottom - top), np.asarray(vector, dtype=np.float32))
        for (top, right, bottom, left), vector in zip(places, vectors, strict=True)
    ]
    return Analysed(width, height, central_first(faces, width, height))


def app() -> FastAPI:
    """For uvicorn."""
    return application(analyse, lambda gallery, probe: -face_recognition.face_distance(gallery, probe), -_TOLERANCE)


def main() -> None:
    """A process a core, since dlib holds the interpreter."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--enrolled", type=Path, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    given = parser.parse_args()
    serve(
        "face_recognition_service:app", analyse,
        port=given.port, workers=given.workers, enrolled=given.enrolled, keep=given.keep,
    )  # fmt: skip


if __name__ == "__main__":
    main()
