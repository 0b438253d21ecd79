"""Faces to enrol, and folders to enrol them in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from service.domain import FaceQuality, NewFace
from service.gallery.embedded import EmbeddedGallery

DIMENSION = 64
SPACE = "sf1-unit"


def embedding(face_id: str) -> np.ndarray:
    """A unit vector that follows from the face id, so that any process can tell what was stored."""
    seed = int.from_bytes(hashlib.sha256(face_id.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def new_face(face_id: str) -> NewFace:
    quality = FaceQuality(side_px=100.0, detection_score=0.9, sharpness=20.0, yaw=0.0, roll_deg=0.0)
    return NewFace(face_id, embedding(face_id), quality)


def open_embedded(folder: Path, **options: Any) -> EmbeddedGallery:
    return EmbeddedGallery.open(folder, space_id=SPACE, dimension=DIMENSION, **options)
