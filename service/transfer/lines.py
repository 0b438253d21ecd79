"""One person as one line of JSON: what an export writes and an import reads.

    {"space_id": "sf1-...", "person_id": "ann", "name": "Ann", "metadata": {}, "created_at": "2026-01-02T03:04:05Z",
     "faces": [{"face_id": "f-1", "embedding": "<base64 of little-endian float32>", "quality": null,
                "crop_digest": "", "expires_at": null, "crop": "<base64 of a PNG file, or null>"}]}

Instead of `faces` a line may have `images`, pictures in base64; it needs no `space_id` then. An embedding may also be a
list of numbers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.domain import DomainError, FaceQuality, InvalidRequest, NewFace, PersonRecord, SpaceMismatch

_STORED = np.dtype("<f4")
_MAX_FACES = 10_000


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """Somebody who comes as pictures, each with what it is called and a way to read it."""

    person_id: str
    name: str | None
    metadata: dict[str, Any]
    pictures: tuple[tuple[str, Callable[[], bytes]], ...]


class _Face(BaseModel):
    model_config = ConfigDict(extra="forbid")

    face_id: str
    embedding: str | list[float]
    quality: FaceQuality | None = None
    crop_digest: str = ""
    expires_at: AwareDatetime | None = None
    crop: str | None = None


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    space_id: str | None = None
    person_id: str
    name: str | None = None
    metadata: dict[str, Any] = {}
    created_at: AwareDatetime | None = None
    faces: Annotated[list[_Face], Field(max_length=_MAX_FACES)] | None = None
    images: Annotated[list[str], Field(max_length=_MAX_FACES)] | None = None


def encoded(record: PersonRecord, space_id: str) -> bytes:
    """A person as a line, with its end."""
    created_at: datetime | None = record.created_at
    line = {
        "space_id": space_id,
        "person_id": record.person_id,
        "name": record.name,
        "metadata": record.metadata,
        "created_at": created_at,
        "faces": [
            {
                "face_id": face.face_id,
                "embedding": base64.b64encode(face.embedding.astype(_STORED, copy=False).tobytes()).decode(),
                "quality": face.quality,
                "crop_digest": face.crop_digest,
                "expires_at": face.expires_at,
                "crop": None if face.crop is None else base64.b64encode(face.crop).decode(),
            }
            for face in record.faces
        ],
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def decoded(line: bytes, space_id: str) -> PersonRecord | PictureRecord:
    """The person of a line.

    Raises:
        InvalidRequest: it is not JSON, or not of this form.
        SpaceMismatch: its embeddings are of another space, or it does not say of which.
    """
    try:
        content = _Line.model_validate(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the line is not JSON: {error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "line"
        raise InvalidRequest(f"{field}: {first['msg']}", field=field) from error
    if (content.faces is None) == (content.images is None):
        raise InvalidRequest("a line has either faces or images", field="faces")
    if content.images is not None:
        pictures = tuple((f"image {i}", _picture_reader(image)) for i, image in enumerate(content.images))
        return PictureRecord(content.person_id, content.name, content.metadata, pictures)
    if content.space_id != space_id:
        raise SpaceMismatch(
            f"the embeddings are of space {content.space_id or 'unknown'}, the model at hand makes space {space_id}",
            space_id=space_id,
        )
    faces = tuple(
        NewFace(
            face.face_id,
            _vector(face.embedding),
            face.quality,
            face.crop_digest,
            face.expires_at,
            None if face.crop is None else _crop(face.crop),
        )
        for face in content.faces or ()
    )
    return PersonRecord(content.person_id, content.name, content.metadata, faces, content.created_at)


def _vector(embedding: str | list[float]) -> NDArray[np.float32]:
    if isinstance(embedding, list):
        return np.array(embedding, dtype=np.float32)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype=_STORED).astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("an embedding is not base64 of float32 values", field="embedding") from error


def _crop(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("a crop is not base64", field="crop") from error


def _picture_reader(image: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest("an image is not base64", field="images") from error

    return read


Parsed = PersonRecord | PictureRecord | DomainError
