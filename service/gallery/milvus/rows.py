"""Rows of the two collections in Milvus: their keys, fields and schemas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient

from service.domain import GallerySettings


@dataclass(frozen=True, slots=True, eq=False)
class FaceRow:
    """A face as stored.

    Attributes:
        face_key: primary key, from gallery and face id.
        position: grows in the order of enrolment.
        quality: as JSON.
        embedding: (d,) float32; empty where it was not asked for.
        created_us: when it was enrolled, microseconds since 1970.
        expires_us: when it is to be erased, likewise; 0 for never.
    """

    face_key: str
    gallery: str
    person_key: str
    face_id: str
    position: int
    quality: str
    crop_digest: str
    embedding: NDArray[np.float32]
    created_us: int = 0
    expires_us: int = 0

    def expired(self, now_us: int) -> bool:
        """Whether its time had come at a moment."""
        return 0 < self.expires_us <= now_us


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A person as stored. Their row is what makes them exist: faces without one belong to nobody."""

    person_key: str
    gallery: str
    person_id: str
    name: str | None
    metadata: str
    created_us: int
    revision: int = 0


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """A gallery as stored."""

    revision: int = 0
    settings: GallerySettings = field(default_factory=GallerySettings)


@dataclass(frozen=True, slots=True)
class DropRow:
    """Says that a gallery does not exist any more, though not all that it held is erased.

    Attributes:
        revision: that dropping it made.
        alive_us: when somebody was last seen erasing, microseconds since 1970.
    """

    revision: int
    alive_us: int


@dataclass(slots=True)
class Galleries:
    """All galleries at one moment.

    Attributes:
        existing, dropping: by name.
        last: the highest revision there has been.
    """

    existing: dict[str, GalleryRow] = field(default_factory=dict)
    dropping: dict[str, DropRow] = field(default_factory=dict)
    last: int = 0


def key_of(kind: str, *parts: str) -> str:
    """A primary key: 32 hexadecimal digits that follow from what they stand for, spread evenly."""
    return hashlib.blake2b("\0".join((kind, *parts)).encode(), digest_size=16).hexdigest()


def person_key_of(gallery: str, person_id: str) -> str:
    """Key of a person."""
    return key_of("person", gallery, person_id)


def face_key_of(gallery: str, face_id: str) -> str:
    """Key of a face."""
    return key_of("face", gallery, face_id)


def face_schema(dimension: int) -> Any:
    """Of the collection of faces."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("face_key", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("gallery", DataType.VARCHAR, max_length=64)
    schema.add_field("person_key", DataType.VARCHAR, max_length=32)
    # In bytes: 128 characters.
    schema.add_field("face_id", DataType.VARCHAR, max_length=512)
    schema.add_field("position", DataType.INT64)
    schema.add_field("created_us", DataType.INT64)
    schema.add_field("expires_us", DataType.INT64)
    schema.add_field("quality", DataType.VARCHAR, max_length=4096)
    schema.add_field("crop_digest", DataType.VARCHAR, max_length=256)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dimension)
    return schema


def people_schema() -> Any:
    """Of the collection of persons, galleries and the space."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("person_key", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("kind", DataType.VARCHAR, max_length=8)
    schema.add_field("gallery", DataType.VARCHAR, max_length=64)
    schema.add_field("person_id", DataType.VARCHAR, max_length=128)
    schema.add_field("record", DataType.VARCHAR, max_length=65_535)
    # A collection without a vector is refused.
    schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)
    return schema


def fields_of_face(face: FaceRow) -> dict[str, Any]:
    """A face as it is inserted."""
    return {
        "face_key": face.face_key,
        "gallery": face.gallery,
        "person_key": face.person_key,
        "face_id": face.face_id,
        "position": face.position,
        "created_us": face.created_us,
        "expires_us": face.expires_us,
        "quality": face.quality,
        "crop_digest": face.crop_digest,
        "embedding": face.embedding,
    }


def record_of(person: PersonRow) -> str:
    """What is stored of a person beside their keys, as JSON."""
    return json.dumps(
        {
            "name": person.name,
            "metadata": person.metadata,
            "created_us": person.created_us,
            "revision": person.revision,
        }
    )


def fields_of_person(person: PersonRow) -> dict[str, Any]:
    """A person as they are inserted."""
    return fields_of_people(person.person_key, "person", person.gallery, person.person_id, record_of(person))


def fields_of_gallery(name: str, row: GalleryRow) -> dict[str, Any]:
    """A gallery as it is inserted."""
    record = json.dumps({"revision": row.revision, "settings": asdict(row.settings)})
    return fields_of_people(key_of("gallery", name), "gallery", name, "", record)


def fields_of_drop(name: str, row: DropRow) -> dict[str, Any]:
    """A drop as it is inserted."""
    return fields_of_people(key_of("drop", name), "drop", name, "", json.dumps(asdict(row)))


def fields_of_last(revision: int) -> dict[str, Any]:
    """The highest revision, as it is inserted when the gallery that had it goes."""
    return fields_of_people("last", "last", "", "", json.dumps({"revision": revision}))


def fields_of_people(key: str, kind: str, gallery: str, person_id: str, record: str) -> dict[str, Any]:
    """A row of the collection of people as it is inserted."""
    return {
        "person_key": key,
        "kind": kind,
        "gallery": gallery,
        "person_id": person_id,
        "record": record,
        "nothing": [1.0, 0.0],
    }


def person_row(row: dict[str, Any]) -> PersonRow:
    """A person as Milvus answers."""
    return PersonRow(row["person_key"], row["gallery"], row["person_id"], **json.loads(row["record"]))


def galleries_of(rows: Iterable[dict[str, Any]]) -> Galleries:
    """All galleries, of the rows of the kinds gallery, drop and last as Milvus answers; others are passed over."""
    galleries = Galleries()
    for row in rows:
        if row["kind"] not in ("gallery", "drop", "last"):
            continue
        name, record = row["gallery"], json.loads(row["record"])
        galleries.last = max(galleries.last, record["revision"])
        if row["kind"] == "gallery":
            galleries.existing[name] = GalleryRow(record["revision"], GallerySettings(**record["settings"]))
        elif row["kind"] == "drop":
            galleries.dropping[name] = DropRow(**record)
    for name in galleries.dropping:
        galleries.existing.pop(name, None)
    return galleries


def face_row(row: dict[str, Any]) -> FaceRow:
    """A face as Milvus answers, whichever fields were asked for."""
    return FaceRow(
        face_key=row["face_key"],
        gallery=row["gallery"],
        person_key=row["person_key"],
        face_id=row["face_id"],
        position=int(row.get("position", 0)),
        quality=row.get("quality", "null"),
        crop_digest=row.get("crop_digest", ""),
        embedding=np.asarray(row.get("embedding", ()), dtype=np.float32),
        created_us=int(row.get("created_us", 0)),
        expires_us=int(row.get("expires_us", 0)),
    )
