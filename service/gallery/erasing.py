"""What is erased: faces, persons, whole galleries, within a transaction that somebody else began.

Embeddings, profiles and crops are blanked in place, at the same length; `schema.MIGRATIONS` says why their rows stay.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from service.domain import FaceNotFound
from service.gallery import records
from service.gallery.schema import next_revision

# No gallery can have such a name, so a dropped one cannot be asked for while its rows are being erased.
DROPPED = "#dropped-"


@dataclass(frozen=True, slots=True, eq=False)
class Forgotten:
    """What a deletion took away.

    Attributes:
        person_id: whose faces they were, or who went.
        persons: that went, 0 or 1 except for a gallery's.
        face_keys: (m,) int64, of the faces that went.
        crops: kept ones among them.
        revision: that this made.
    """

    gallery: str
    person_id: str
    persons: int
    face_keys: NDArray[np.int64]
    crop_digests: tuple[str, ...]
    crops: int
    revision: int


def forget(
    connection: sqlite3.Connection, gallery: str, person_id: str, expected_revision: int | None = None
) -> Forgotten:
    """Erase a person and their faces. Raises GalleryNotFound, PersonNotFound, RevisionMismatch."""
    gallery_key = records.key_of_gallery(connection, gallery)
    person_key = records.key_of_person(connection, gallery_key, gallery, person_id)
    records.check_revision(connection, "persons", person_key, expected_revision)
    faces = connection.execute(
        "SELECT face_key, crop_digest FROM faces WHERE person_key = ? ORDER BY face_key", (person_key,)
    ).fetchall()
    return _erased(connection, (gallery, gallery_key), (person_id, person_key), faces, person_too=True)


def forget_face(
    connection: sqlite3.Connection, gallery: str, person_id: str, face_id: str, expected_revision: int | None
) -> Forgotten:
    """Erase one face. Raises GalleryNotFound, PersonNotFound, FaceNotFound, RevisionMismatch."""
    gallery_key = records.key_of_gallery(connection, gallery)
    person_key = records.key_of_person(connection, gallery_key, gallery, person_id)
    records.check_revision(connection, "persons", person_key, expected_revision)
    faces = connection.execute(
        "SELECT face_key, crop_digest FROM faces WHERE person_key = ? AND face_id = ? "
        "AND (expires_at_us IS NULL OR expires_at_us > ?)",
        (person_key, records.storable(face_id), records.now_us()),
    ).fetchall()
    if not faces:
        raise no_such_face(gallery, person_id)
    return _erased(connection, (gallery, gallery_key), (person_id, person_key), faces, person_too=False)


def no_such_face(gallery: str, person_id: str) -> FaceNotFound:
    """The error that says so."""
    return FaceNotFound("the person has no face of this id", gallery=gallery, person_id=person_id)


def expire(connection: sqlite3.Connection, limit: int) -> list[Forgotten]:
    """Erase up to `limit` faces whose time has come, and persons whose last one went; by gallery and person."""
    due = connection.execute(
        "SELECT g.name, g.gallery_key, p.person_id, p.person_key, f.face_key, f.crop_digest FROM faces f "
        "JOIN persons p USING (person_key) JOIN galleries g ON g.gallery_key = p.gallery_key "
        "WHERE f.expires_at_us <= ? ORDER BY f.expires_at_us LIMIT ?",
        (records.now_us(), limit),
    ).fetchall()
    gone = []
    for owner, rows in groupby(sorted(due), key=lambda row: row[:4]):
        gallery, gallery_key, person_id, person_key = owner
        faces = [(key, digest) for *_, key, digest in rows]
        (left,) = connection.execute("SELECT count(*) FROM faces WHERE person_key = ?", (person_key,)).fetchone()
        person_too = left == len(faces)
        gone.append(_erased(connection, (gallery, gallery_key), (person_id, person_key), faces, person_too=person_too))
    return gone


def begin_drop(connection: sqlite3.Connection, gallery: str, expected_revision: int | None) -> tuple[int, int]:
    """Take a gallery's name away; its key, and the revision that this made. `drop_some` erases what is in it."""
    key = records.key_of_gallery(connection, gallery)
    records.check_revision(connection, "galleries", key, expected_revision)
    revision = next_revision(connection)
    connection.execute(
        "UPDATE galleries SET name = ?, revision = ? WHERE gallery_key = ?", (f"{DROPPED}{key}", revision, key)
    )
    return key, revision


def drop_some(connection: sqlite3.Connection, gallery_key: int, limit: int) -> Forgotten | None:
    """Erase some more of a dropped gallery: `limit` faces, then as many persons, then itself. None at the end."""
    faces = connection.execute(
        "SELECT face_key, crop_digest FROM faces WHERE gallery_key = ? LIMIT ?", (gallery_key, limit)
    ).fetchall()
    persons = connection.execute(
        "SELECT person_key FROM persons WHERE gallery_key = ? LIMIT ?", (gallery_key, 0 if faces else limit)
    ).fetchall()
    crops = _blank_faces(connection, [key for key, _ in faces])
    for (person_key,) in persons:
        _blank_person(connection, person_key)
    if not faces and not persons:
        connection.execute("DELETE FROM galleries WHERE gallery_key = ?", (gallery_key,))
        return None
    connection.execute(
        "UPDATE galleries SET persons = persons - ?, faces = faces - ? WHERE gallery_key = ?",
        (len(persons), len(faces), gallery_key),
    )
    keys, digests = _keys_and_digests(faces)
    return Forgotten("", "", len(persons), keys, digests, crops, 0)


def _erased(
    connection: sqlite3.Connection,
    gallery: tuple[str, int],
    person: tuple[str, int],
    faces: Sequence[tuple[int, str]],
    *,
    person_too: bool,
) -> Forgotten:
    """Erase faces of one person, and perhaps the person.

    Args:
        gallery, person: name or id, and key.
        faces: keys and crop digests.
        person_too: they go as well.
    """
    name, gallery_key = gallery
    person_id, person_key = person
    crops = _blank_faces(connection, [key for key, _ in faces])
    if person_too:
        _blank_person(connection, person_key)
    revision = next_revision(connection)
    connection.execute("UPDATE persons SET revision = ? WHERE person_key = ?", (revision, person_key))
    connection.execute(
        "UPDATE galleries SET persons = persons - ?, faces = faces - ?, revision = ? WHERE gallery_key = ?",
        (person_too, len(faces), revision, gallery_key),
    )
    return Forgotten(name, person_id, int(person_too), *_keys_and_digests(faces), crops, revision)


def _keys_and_digests(faces: Sequence[tuple[int, str]]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    keys = np.array(sorted(key for key, _ in faces), dtype=np.int64)
    return keys, tuple(digest for _, digest in faces if digest)


def _blank_faces(connection: sqlite3.Connection, face_keys: Sequence[int]) -> int:
    """Erase faces; how many of them had a kept crop."""
    keys = [(key,) for key in face_keys]
    connection.executemany("UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE face_key = ?", keys)
    blanked = connection.execute(
        "UPDATE crops SET image = zeroblob(length(image)) WHERE face_key IN (SELECT value FROM json_each(?))",
        (json.dumps(face_keys),),
    )
    connection.executemany("DELETE FROM faces WHERE face_key = ?", keys)
    return blanked.rowcount


def _blank_person(connection: sqlite3.Connection, person_key: int) -> None:
    records.blank_profile(connection, person_key)
    connection.execute("DELETE FROM persons WHERE person_key = ?", (person_key,))
