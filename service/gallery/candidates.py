"""Persons on their way into the database: checked, and in the form that is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain import DomainError, InvalidEmbedding, InvalidRequest, NewFace, PersonRecord, check_person_id
from service.gallery.bulk import Candidate
from service.gallery.checks import (
    checked_embeddings_each,
    checked_face_id,
    checked_text,
    metadata_json,
    quality_json,
)
from service.gallery.records import FaceRow, microseconds
from service.gallery.vectors import STORED_DTYPE

# Of an aligned crop of 112 x 112 pixels, however little it compresses.
_MAX_CROP_BYTES = 200_000


def prepared(
    records: Sequence[PersonRecord], dimension: int
) -> list[tuple[Candidate, NDArray[np.float32]] | DomainError]:
    """What is to be stored of each record with its embeddings (m, dimension), or why nothing of it is."""
    checked = checked_embeddings_each([record.faces for record in records], dimension)
    return [_candidate(record, vectors) for record, vectors in zip(records, checked, strict=True)]


def _candidate(
    record: PersonRecord, vectors: NDArray[np.float32] | InvalidEmbedding
) -> tuple[Candidate, NDArray[np.float32]] | DomainError:
    if isinstance(vectors, InvalidEmbedding):
        return vectors
    try:
        candidate = Candidate(
            check_person_id(record.person_id),
            checked_text(record.name, "name"),
            metadata_json(record.metadata),
            None if record.created_at is None else microseconds(record.created_at),
            [face_row(face, vector) for face, vector in zip(record.faces, vectors, strict=True)],
        )
    except DomainError as error:
        return error
    return candidate, vectors


def face_row(face: NewFace, vector: NDArray[np.float32]) -> FaceRow:
    """A face as it is stored. Raises InvalidRequest."""
    if face.crop is not None and not 0 < len(face.crop) <= _MAX_CROP_BYTES:
        raise InvalidRequest(f"a kept crop has 1 to {_MAX_CROP_BYTES} bytes", field="crop")
    return FaceRow(
        face_id=checked_face_id(face.face_id),
        embedding=vector.astype(STORED_DTYPE, copy=False).tobytes(),
        quality=quality_json(face.quality),
        crop_digest=face.crop_digest,
        expires_us=None if face.expires_at is None else microseconds(face.expires_at),
        crop=face.crop,
    )
