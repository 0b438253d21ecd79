"""Persons on their way into Milvus: checked, and in the form that is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.domain import DomainError, NewFace, PersonRecord, check_person_id
from service.gallery.checks import checked_embeddings, checked_face_id, checked_text, metadata_json, quality_json
from service.gallery.milvus.changes import Candidate, check_record
from service.gallery.milvus.rows import FaceRow, PersonRow, face_key_of, person_key_of
from service.gallery.records import microseconds, now_us


def prepared(gallery: str, record: PersonRecord, dimension: int) -> Candidate | DomainError:
    """What is to be stored of a record, or why nothing of it is."""
    try:
        return candidate(gallery, record, dimension)
    except DomainError as error:
        return error


def candidate(gallery: str, record: PersonRecord, dimension: int) -> Candidate:
    """What is to be stored of a record. Raises InvalidRequest, InvalidEmbedding."""
    key, now = person_key_of(gallery, check_person_id(record.person_id)), now_us()
    vectors = checked_embeddings(record.faces, dimension)
    person = PersonRow(
        person_key=key,
        gallery=gallery,
        person_id=record.person_id,
        name=checked_text(record.name, "name"),
        metadata=metadata_json(record.metadata),
        created_us=now if record.created_at is None else microseconds(record.created_at),
    )
    check_record(person)
    faces = [_face(gallery, key, face, vector, now) for face, vector in zip(record.faces, vectors, strict=True)]
    return Candidate(person, faces)


def _face(gallery: str, person_key: str, face: NewFace, vector: NDArray[np.float32], created_us: int) -> FaceRow:
    return FaceRow(
        face_key=face_key_of(gallery, checked_face_id(face.face_id)),
        gallery=gallery,
        person_key=person_key,
        face_id=face.face_id,
        position=0,
        quality=quality_json(face.quality),
        crop_digest=face.crop_digest,
        embedding=vector.copy(),
        created_us=created_us,
        # 0 is never.
        expires_us=0 if face.expires_at is None else max(1, microseconds(face.expires_at)),
    )
