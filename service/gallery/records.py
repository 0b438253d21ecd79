"""Persons and their faces as rows: what a change or a read does within a transaction that somebody else began."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    GALLERY_NAME,
    PERSON_ID,
    GalleryNotFound,
    InvalidRequest,
    Person,
    PersonExists,
    PersonNotFound,
)
from service.gallery.schema import next_revision

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FaceRow(NamedTuple):
    """A face on its way into the database.

    Attributes:
        embedding: little-endian float32 bytes.
        quality: as JSON.
        crop_digest: what caches know the face by.
    """

    face_id: str
    embedding: bytes
    quality: str
    crop_digest: str


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A change to make: the arguments of `Gallery.enrol`, with `metadata` as a JSON object."""

    gallery: str
    person_id: str
    name: str | None
    metadata: str
    faces: Sequence[FaceRow]
    extend: bool


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What an enrolment stored: the person as they are now, and the keys (m,) int64 of the new faces."""

    person: Person
    person_key: int
    face_keys: NDArray[np.int64]
    revision: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a deletion took away: keys (m,) int64 and crop digests of the faces, and the revision that this made."""

    gallery: str
    face_keys: NDArray[np.int64]
    crop_digests: tuple[str, ...]
    revision: int


def enrol(connection: sqlite3.Connection, new: Enrolment) -> Enrolled:
    """Store a person with faces, or faces of a person who exists already; see `Gallery.enrol`.

    Raises:
        PersonExists: the id is taken and `extend` is false.
        InvalidRequest: a face id is taken, or a new person has no face.
    """
    created_us = now_us()
    connection.execute("INSERT INTO galleries (name) VALUES (?) ON CONFLICT DO NOTHING", (new.gallery,))
    gallery_key = key_of_gallery(connection, new.gallery)
    row = connection.execute(
        "SELECT person_key FROM persons WHERE gallery_key = ? AND person_id = ?", (gallery_key, new.person_id)
    ).fetchone()
    if row is not None and not new.extend:
        raise PersonExists("a person of this id is enrolled already", gallery=new.gallery, person_id=new.person_id)
    if row is None and not new.faces:
        raise InvalidRequest("a new person needs at least one face", field="faces")
    if row is None:
        person_key = _inserted(
            connection,
            "INSERT INTO persons (gallery_key, person_id, name, metadata, created_at_us) VALUES (?, ?, ?, ?, ?)",
            (gallery_key, new.person_id, new.name, new.metadata, created_us),
        )
    else:
        person_key = row[0]
        connection.execute(
            "UPDATE persons SET name = coalesce(?, name), metadata = iif(? = '{}', metadata, ?) WHERE person_key = ?",
            (new.name, new.metadata, new.metadata, person_key),
        )
    revision = next_revision(connection)
    face_keys = [
        _add_face(connection, face, (person_key, gallery_key), created_us=created_us, revision=revision)
        for face in new.faces
    ]
    connection.execute(
        "UPDATE galleries SET persons = persons + ?, faces = faces + ?, revision = ? WHERE gallery_key = ?",
        (row is None, len(new.faces), revision, gallery_key),
    )
    person = person_of_key(connection, new.gallery, person_key)
    return Enrolled(person, person_key, np.array(face_keys, dtype=np.int64), revision)


def _add_face(
    connection: sqlite3.Connection, face: FaceRow, owner: tuple[int, int], *, created_us: int, revision: int
) -> int:
    face_key = _inserted(connection, "INSERT INTO embeddings (vector) VALUES (?)", (face.embedding,))
    added = connection.execute(
        "INSERT INTO faces (face_key, person_key, gallery_key, face_id, quality, crop_digest, created_at_us, "
        "revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (gallery_key, face_id) DO NOTHING",
        (face_key, *owner, face.face_id, face.quality, face.crop_digest, created_us, revision),
    )
    if not added.rowcount:
        raise InvalidRequest("a face of this id is in the gallery already", field="face_id", face_id=face.face_id)
    return face_key


def forget(connection: sqlite3.Connection, gallery: str, person_id: str) -> Forgotten:
    """Erase a person and their faces. Raises GalleryNotFound, PersonNotFound."""
    gallery_key = key_of_gallery(connection, gallery)
    person_key = key_of_person(connection, gallery_key, gallery, person_id)
    rows = connection.execute(
        "SELECT face_key, crop_digest FROM faces WHERE person_key = ? ORDER BY face_key", (person_key,)
    ).fetchall()
    face_keys = [key for key, _ in rows]
    revision = next_revision(connection)
    # Blanked in place and at the same length; `schema.MIGRATIONS` says why the row stays.
    connection.executemany(
        "UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE face_key = ?", [(key,) for key in face_keys]
    )
    connection.execute("DELETE FROM faces WHERE person_key = ?", (person_key,))
    connection.execute("DELETE FROM persons WHERE person_key = ?", (person_key,))
    connection.execute(
        "UPDATE galleries SET persons = persons - 1, faces = faces - ?, revision = ? WHERE gallery_key = ?",
        (len(face_keys), revision, gallery_key),
    )
    digests = tuple(digest for _, digest in rows if digest)
    return Forgotten(gallery, np.array(face_keys, dtype=np.int64), digests, revision)


def now_us() -> int:
    """Microseconds since 1970."""
    return microseconds(datetime.now(UTC))


def microseconds(moment: datetime) -> int:
    """A moment as it is stored: microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _inserted(connection: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> int:
    return cast(int, connection.execute(statement, values).lastrowid)


def no_such_gallery(gallery: str) -> GalleryNotFound:
    """The error that says so."""
    return GalleryNotFound("there is no gallery of this name", gallery=gallery)


def key_of_gallery(connection: sqlite3.Connection, gallery: str) -> int:
    """Key of a gallery by name. Raises GalleryNotFound."""
    # Matched first, because text that is not valid Unicode could not even be asked for.
    well_formed = GALLERY_NAME.fullmatch(gallery)
    row = well_formed and connection.execute("SELECT gallery_key FROM galleries WHERE name = ?", (gallery,)).fetchone()
    if row is None:
        raise no_such_gallery(gallery)
    return int(row[0])


def key_of_person(connection: sqlite3.Connection, gallery_key: int, gallery: str, person_id: str) -> int:
    """Key of a person by id. Raises PersonNotFound."""
    row = (
        PERSON_ID.fullmatch(person_id)
        and connection.execute(
            "SELECT person_key FROM persons WHERE gallery_key = ? AND person_id = ?", (gallery_key, person_id)
        ).fetchone()
    )
    if row is None:
        raise PersonNotFound("there is no person of this id in the gallery", gallery=gallery, person_id=person_id)
    return int(row[0])


def person_of_key(connection: sqlite3.Connection, gallery: str, person_key: int) -> Person:
    """A person who is known to exist."""
    rows = connection.execute(
        "SELECT person_key, person_id, name, metadata, created_at_us FROM persons WHERE person_key = ?", (person_key,)
    ).fetchall()
    return persons_of_rows(connection, gallery, rows)[0]


def persons_of_rows(connection: sqlite3.Connection, gallery: str, rows: Sequence[tuple[Any, ...]]) -> list[Person]:
    """Persons of rows (person_key, person_id, name, metadata, created_at_us), with their face ids as enrolled."""
    face_ids: dict[int, list[str]] = {row[0]: [] for row in rows}
    faces = connection.execute(
        "SELECT person_key, face_id FROM faces WHERE person_key IN (SELECT value FROM json_each(?)) ORDER BY face_key",
        (json.dumps(list(face_ids)),),
    )
    for person_key, face_id in faces:
        face_ids[person_key].append(face_id)
    return [
        Person(
            gallery=gallery,
            person_id=person_id,
            name=name,
            metadata=json.loads(metadata),
            created_at=_EPOCH + timedelta(microseconds=created_at_us),
            face_ids=tuple(face_ids[person_key]),
        )
        for person_key, person_id, name, metadata, created_at_us in rows
    ]
