"""Rows of the two collections in Milvus: their keys, fields and schemas."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient


@dataclass(frozen=True, slots=True, eq=False)
class FaceRow:
    """A face as stored.

    Attributes:
        face_key: primary key, from gallery and face id.
        position: grows in the order of enrolment.
        quality: as JSON.
        embedding: (d,) float32; empty where it was not asked for.
    """

    face_key: str
    gallery: str
    person_key: str
    face_id: str
    position: int
    quality: str
    crop_digest: str
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A person as stored. Their row is what makes them exist: faces without one belong to nobody."""

    person_key: str
    gallery: str
    person_id: str
    name: str | None
    metadata: str
    created_us: int


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
        "quality": face.quality,
        "crop_digest": face.crop_digest,
        "embedding": face.embedding,
    }


def record_of(person: PersonRow) -> str:
    """What is stored of a person beside their keys, as JSON."""
    return json.dumps({"name": person.name, "metadata": person.metadata, "created_us": person.created_us})


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
    record = json.loads(row["record"])
    return PersonRow(
        row["person_key"], row["gallery"], row["person_id"], record["name"], record["metadata"], record["created_us"]
    )


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
    )
