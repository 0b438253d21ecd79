"""Persons and their faces as rows: what a change or a read does within a transaction that somebody else began."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from service.domain import (
    GALLERY_NAME,
    PERSON_ID,
    UNCHANGED,
    GalleryNotFound,
    InvalidRequest,
    Person,
    PersonExists,
    PersonNotFound,
    RevisionMismatch,
    Unchanged,
)
from service.gallery.schema import next_revision

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SELECT_PERSONS = (
    "SELECT person_key, person_id, name, metadata, created_at_us, revision FROM persons "
    "JOIN profiles USING (profile_key)"
)
_REVISIONS = {
    "persons": "SELECT revision FROM persons WHERE person_key = ?",
    "galleries": "SELECT revision FROM galleries WHERE gallery_key = ?",
}


class FaceRow(NamedTuple):
    """A face on its way into the database.

    Attributes:
        embedding: little-endian float32 bytes.
        quality: as JSON.
        crop_digest: what caches know the face by.
        expires_us: when it is to be erased, None for never.
        crop: PNG file, where it is to be kept.
    """

    face_id: str
    embedding: bytes
    quality: str
    crop_digest: str
    expires_us: int | None = None
    crop: bytes | None = None


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


def enrol(connection: sqlite3.Connection, new: Enrolment) -> Enrolled:
    """Store a person with faces, or faces of a person who exists already; see `Gallery.enrol`.

    Raises:
        PersonExists: the id is taken and `extend` is false.
        InvalidRequest: a face id is taken.
    """
    created_us = now_us()
    connection.execute("INSERT INTO galleries (name) VALUES (?) ON CONFLICT DO NOTHING", (new.gallery,))
    gallery_key = key_of_gallery(connection, new.gallery)
    row = connection.execute(
        "SELECT person_key FROM persons WHERE gallery_key = ? AND person_id = ?", (gallery_key, new.person_id)
    ).fetchone()
    if row is not None and not new.extend:
        raise PersonExists("a person of this id is enrolled already", gallery=new.gallery, person_id=new.person_id)
    revision = next_revision(connection)
    if row is None:
        person_key = _inserted(
            connection,
            "INSERT INTO persons (gallery_key, person_id, created_at_us, profile_key, revision) VALUES (?, ?, ?, ?, ?)",
            (gallery_key, new.person_id, created_us, _add_profile(connection, new.name, new.metadata), revision),
        )
    else:
        person_key = row[0]
        change_profile(connection, person_key, name=new.name, metadata=None if new.metadata == "{}" else new.metadata)
        connection.execute("UPDATE persons SET revision = ? WHERE person_key = ?", (revision, person_key))
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
        "revision, expires_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (gallery_key, face_id) DO NOTHING",
        (face_key, *owner, face.face_id, face.quality, face.crop_digest, created_us, revision, face.expires_us),
    )
    if not added.rowcount:
        raise InvalidRequest("a face of this id is in the gallery already", field="face_id", face_id=face.face_id)
    if face.crop is not None:
        connection.execute("INSERT INTO crops (face_key, image) VALUES (?, ?)", (face_key, face.crop))
    return face_key


def update_person(
    connection: sqlite3.Connection,
    gallery: str,
    person_id: str,
    name: str | Unchanged | None,
    metadata: str | Unchanged,
    expected_revision: int | None,
) -> Person:
    """Change a profile; see `Gallery.update_person`. `metadata` is a JSON object."""
    gallery_key = key_of_gallery(connection, gallery)
    person_key = key_of_person(connection, gallery_key, gallery, person_id)
    check_revision(connection, "persons", person_key, expected_revision)
    known = connection.execute(
        "SELECT name, metadata FROM persons JOIN profiles USING (profile_key) WHERE person_key = ?", (person_key,)
    ).fetchone()
    new = (known[0] if name is UNCHANGED else name, known[1] if metadata is UNCHANGED else metadata)
    if new != known:
        _replace_profile(connection, person_key, *new)
        stamp_person(connection, gallery_key, person_key)
    return person_of_key(connection, gallery, person_key)


def check_revision(
    connection: sqlite3.Connection, table: Literal["persons", "galleries"], key: int, expected: int | None
) -> None:
    """Raises RevisionMismatch when a row is of another revision than the caller has seen."""
    if expected is None:
        return
    (revision,) = connection.execute(_REVISIONS[table], (key,)).fetchone()
    if revision != expected:
        raise RevisionMismatch("it has been changed since it was read", revision=revision)


def stamp_person(connection: sqlite3.Connection, gallery_key: int, person_key: int) -> int:
    """Give a person and their gallery the next revision."""
    revision = next_revision(connection)
    connection.execute("UPDATE persons SET revision = ? WHERE person_key = ?", (revision, person_key))
    connection.execute("UPDATE galleries SET revision = ? WHERE gallery_key = ?", (revision, gallery_key))
    return revision


def _add_profile(connection: sqlite3.Connection, name: str | None, metadata: str) -> int:
    return _inserted(connection, "INSERT INTO profiles (name, metadata) VALUES (?, ?)", (name, metadata))


def change_profile(connection: sqlite3.Connection, person_key: int, *, name: str | None, metadata: str | None) -> None:
    """Give a person another name or metadata; None leaves what there is."""
    if name is not None or metadata is not None:
        known = connection.execute(
            "SELECT name, metadata FROM persons JOIN profiles USING (profile_key) WHERE person_key = ?", (person_key,)
        ).fetchone()
        new = (known[0] if name is None else name, known[1] if metadata is None else metadata)
        if new != known:
            _replace_profile(connection, person_key, *new)


def _replace_profile(connection: sqlite3.Connection, person_key: int, name: str | None, metadata: str) -> None:
    blank_profile(connection, person_key)
    profile_key = _add_profile(connection, name, metadata)
    connection.execute("UPDATE persons SET profile_key = ? WHERE person_key = ?", (profile_key, person_key))


def blank_profile(connection: sqlite3.Connection, person_key: int) -> None:
    """Overwrite name and metadata of a person in place; `schema.MIGRATIONS` says why the row stays."""
    connection.execute(
        "UPDATE profiles SET name = iif(name IS NULL, NULL, zeroblob(length(CAST(name AS BLOB)))), "
        "metadata = zeroblob(length(CAST(metadata AS BLOB))) "
        "WHERE profile_key = (SELECT profile_key FROM persons WHERE person_key = ?)",
        (person_key,),
    )


def now_us() -> int:
    """Microseconds since 1970."""
    return microseconds(datetime.now(UTC))


def microseconds(time: datetime) -> int:
    """A moment as it is stored: microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def moment(stored_us: int) -> datetime:
    """What `microseconds` was given."""
    return _EPOCH + timedelta(microseconds=stored_us)


def _inserted(connection: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> int:
    return cast(int, connection.execute(statement, values).lastrowid)


def storable(text: str) -> str | None:
    """Text that SQLite can be asked for; None, which nothing equals, for what is not valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


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
    rows = connection.execute(f"{SELECT_PERSONS} WHERE person_key = ?", (person_key,)).fetchall()
    return persons_of_rows(connection, gallery, rows)[0]


def persons_of_rows(connection: sqlite3.Connection, gallery: str, rows: Sequence[tuple[Any, ...]]) -> list[Person]:
    """Persons of rows of `SELECT_PERSONS`, with their face ids as enrolled."""
    face_ids: dict[int, list[str]] = {row[0]: [] for row in rows}
    faces = connection.execute(
        "SELECT person_key, face_id FROM faces WHERE person_key IN (SELECT value FROM json_each(?)) "
        "AND (expires_at_us IS NULL OR expires_at_us > ?) ORDER BY face_key",
        (json.dumps(list(face_ids)), now_us()),
    )
    for person_key, face_id in faces:
        face_ids[person_key].append(face_id)
    return [
        Person(
            gallery=gallery,
            person_id=person_id,
            name=name,
            metadata=json.loads(metadata),
            created_at=moment(created_at_us),
            face_ids=tuple(face_ids[person_key]),
            revision=revision,
        )
        for person_key, person_id, name, metadata, created_at_us, revision in rows
    ]
