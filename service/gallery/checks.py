"""What may be stored: the values that come with a person or a face, checked and put into the form that is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import FaceQuality, InvalidEmbedding, InvalidRequest, NewFace
from service.gallery.vectors import checked_unit_rows

_MAX_FACE_ID = 128


def checked_text(text: str | None, field: str) -> str | None:
    """The text itself, if it can be stored.

    Raises:
        InvalidRequest: it holds a lone surrogate, which JSON can spell but which is no character.
    """
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the {field} is not valid Unicode", field=field) from error
    return text


def checked_face_id(face_id: str) -> str:
    """The id itself, if it may name a face. Raises InvalidRequest."""
    if not face_id or len(face_id) > _MAX_FACE_ID or "\0" in face_id:
        raise InvalidRequest(f"a face id has 1 to {_MAX_FACE_ID} characters, none of them NUL", field="face_id")
    checked_text(face_id, "face_id")
    return face_id


def checked_embeddings(faces: Sequence[NewFace], dimension: int) -> NDArray[np.float32]:
    """Embeddings of faces as (n, dimension) float32, unit length. Raises InvalidEmbedding."""
    if not faces:
        return np.empty((0, dimension), dtype=np.float32)
    if any(np.shape(face.embedding) != (dimension,) for face in faces):
        raise InvalidEmbedding(f"an embedding has {dimension} values here", dimension=dimension)
    return checked_unit_rows(np.stack([face.embedding for face in faces]), dimension)


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as stored. Raises InvalidRequest for what JSON cannot say."""
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest("the metadata cannot be written as JSON", field="metadata") from error


def quality_json(quality: FaceQuality | None) -> str:
    """Quality as stored."""
    return "null" if quality is None else json.dumps(asdict(quality))


def quality_of(stored: str) -> FaceQuality | None:
    """What `quality_json` was given."""
    values = json.loads(stored)
    if values is None:
        return None
    return FaceQuality(**{**values, "issues": tuple(values["issues"])})
