"""A FastAPI service of the `face_recognition` package (dlib): its own calls and defaults, HOG, a NumPy gallery.

It runs in the peers' environment.
"""

from __future__ import annotations

import io
import threading

import face_recognition
import numpy as np
from fastapi import FastAPI
from serving import Analysed, Found, application, arguments, central_first, serve

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
    one_at_a_time = threading.Lock()

    def compare(gallery: np.ndarray, probe: np.ndarray) -> np.ndarray:
        # The package's own way to compare makes two copies of the gallery.
        with one_at_a_time:
            return np.asarray(-face_recognition.face_distance(gallery, probe))

    return application(analyse, compare, -_TOLERANCE)


def main() -> None:
    """A process a core, since dlib holds the interpreter."""
    serve("face_recognition_service:app", analyse, arguments())


if __name__ == "__main__":
    main()
