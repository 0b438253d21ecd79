"""Two galleries of two spaces, and an embedder that needs no network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.domain import FaceQuality, NewFace, PersonRecord
from service.gallery.embedded import EmbeddedGallery

OLD, NEW = 8, 12
QUALITY = FaceQuality(100.0, 0.9, 30.0, 0.0, 0.0)


def unit(text: bytes, dimension: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def old_and_new(folder: Path) -> tuple[EmbeddedGallery, EmbeddedGallery]:
    return (
        EmbeddedGallery.open(folder / "old", space_id="sf1-old", dimension=OLD),
        EmbeddedGallery.open(folder / "new", space_id="sf1-new", dimension=NEW),
    )


def face(face_id: str, *, kept: bool = True, expires_at: datetime | None = None) -> NewFace:
    crop = f"crop of {face_id}".encode()
    digest = hashlib.sha256(crop).hexdigest()[:40]
    return NewFace(face_id, unit(crop, OLD), QUALITY, digest, expires_at, crop if kept else None)


def person(person_id: str, *faces: NewFace, name: str | None = None) -> PersonRecord:
    return PersonRecord(person_id, name, {"of": person_id}, faces, datetime(2024, 5, 6, tzinfo=UTC))


class CountingEmbedder:
    """Stands for the new model; remembers what it was asked for."""

    def __init__(self) -> None:
        self.crops: list[bytes] = []

    async def __call__(self, crops: Sequence[bytes]) -> list[NDArray[np.float32] | None]:
        self.crops += crops
        return [None if crop == b"damaged" else unit(crop, NEW) for crop in crops]
