"""What may be stored: the values that come with a person or a face, checked and put into the form that is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain import FaceQuality, InvalidEmbedding, InvalidRequest, NewFace, check_metadata_depth
from service.gallery.vectors import checked_unit_rows

_MAX_FACE_ID = 128
# `json.dumps` with an option makes an encoder for every call.
_JSON = json.JSONEncoder(allow_nan=False)


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


def checked_embeddings_each(
    groups: Sequence[Sequence[NewFace]], dimension: int
) -> list[NDArray[np.float32] | InvalidEmbedding]:
    """What `checked_embeddings` says of each group of faces: their embeddings, or its error.

    Thousands of groups are checked as one as long as nothing is wrong, since alone each costs some 30 us.
    """
    try:
        rows = checked_embeddings([face for faces in groups for face in faces], dimension)
    except InvalidEmbedding:
        return [_checked_or_refused(faces, dimension) for faces in groups]
    ends = accumulate(len(faces) for faces in groups)
    return [rows[end - len(faces) : end] for faces, end in zip(groups, ends, strict=True)]


def _checked_or_refused(faces: Sequence[NewFace], dimension: int) -> NDArray[np.float32] | InvalidEmbedding:
    try:
        return checked_embeddings(faces, dimension)
    except InvalidEmbedding as refusal:
        return refusal


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as stored. Raises InvalidRequest for what JSON cannot say, or says too deeply for its readers."""
    check_metadata_depth(metadata)
    try:
        return _JSON.encode(dict(metadata))
    except (TypeError, ValueError) as error:
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
