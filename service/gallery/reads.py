"""What is asked of the database, within a read transaction that somebody else began."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from service.domain import GALLERY_NAME, CropNotKept, Face, FaceNotFound, Person, PersonFilter, PersonPage
from service.gallery import records
from service.gallery.checks import quality_of
from service.gallery.erasing import no_such_face

# Persons that one call looks at to find those who fit a filter.
_LOOKED_AT = 5_000
_LOOKED_AT_ONCE = 500


def person(connection: sqlite3.Connection, gallery: str, person_id: str) -> Person:
    """One person. Raises GalleryNotFound, PersonNotFound."""
    return records.persons_of_rows(connection, gallery, [person_row(connection, gallery, person_id)])[0]


def persons(connection: sqlite3.Connection, gallery: str, after: str | None, limit: int) -> list[Person]:
    """Up to `limit` persons by id, behind `after`. Raises GalleryNotFound."""
    return records.persons_of_rows(connection, gallery, person_rows(connection, gallery, after, limit))


def find_persons(
    connection: sqlite3.Connection, gallery: str, wanted: PersonFilter, after: str | None, limit: int
) -> PersonPage:
    """See `Gallery.find_persons`."""
    found: list[Person] = []
    for _ in range(0, _LOOKED_AT, _LOOKED_AT_ONCE):
        looked_at = persons(connection, gallery, after, _LOOKED_AT_ONCE)
        for each in looked_at:
            after = each.person_id
            if wanted.admits(each):
                found.append(each)
                if len(found) == limit:
                    return PersonPage(tuple(found), after)
        if len(looked_at) < _LOOKED_AT_ONCE:
            return PersonPage(tuple(found), None)
    return PersonPage(tuple(found), after)


def faces(connection: sqlite3.Connection, gallery: str, person_id: str) -> list[Face]:
    """A person's faces in the order of enrolment. Raises GalleryNotFound, PersonNotFound."""
    (person_key, *_) = person_row(connection, gallery, person_id)
    rows = connection.execute(
        "SELECT face_id, quality, created_at_us, expires_at_us, crop_digest, "
        "EXISTS (SELECT 1 FROM crops WHERE crops.face_key = faces.face_key) FROM faces "
        "WHERE person_key = ? AND (expires_at_us IS NULL OR expires_at_us > ?) ORDER BY face_key",
        (person_key, records.now_us()),
    )
    return [
        Face(
            face_id=face_id,
            quality=quality_of(quality),
            created_at=records.moment(created_us),
            expires_at=None if expires_us is None else records.moment(expires_us),
            crop_digest=digest,
            crop_kept=bool(kept),
        )
        for face_id, quality, created_us, expires_us, digest, kept in rows
    ]


def owner_of(connection: sqlite3.Connection, gallery: str, face_id: str) -> str:
    """Id of the person whose face this is. Raises GalleryNotFound, FaceNotFound."""
    row = connection.execute(
        "SELECT person_id FROM faces JOIN persons USING (person_key) WHERE faces.gallery_key = ? AND face_id = ? "
        "AND (expires_at_us IS NULL OR expires_at_us > ?)",
        (records.key_of_gallery(connection, gallery), records.storable(face_id), records.now_us()),
    ).fetchone()
    if row is None:
        raise FaceNotFound("there is no face of this id in the gallery", gallery=gallery)
    return str(row[0])


def crop(connection: sqlite3.Connection, gallery: str, person_id: str, face_id: str) -> bytes:
    """A kept crop. Raises GalleryNotFound, PersonNotFound, FaceNotFound, CropNotKept."""
    (person_key, *_) = person_row(connection, gallery, person_id)
    row = connection.execute(
        "SELECT image FROM faces LEFT JOIN crops USING (face_key) WHERE person_key = ? AND face_id = ? "
        "AND (expires_at_us IS NULL OR expires_at_us > ?)",
        (person_key, records.storable(face_id), records.now_us()),
    ).fetchone()
    if row is None:
        raise no_such_face(gallery, person_id)
    if row[0] is None:
        raise CropNotKept("no crop of this face was kept", gallery=gallery, person_id=person_id)
    return bytes(row[0])


def person_row(connection: sqlite3.Connection, gallery: str, person_id: str) -> tuple[Any, ...]:
    """A row of `records.SELECT_PERSONS`. Raises GalleryNotFound, PersonNotFound."""
    gallery_key = records.key_of_gallery(connection, gallery)
    person_key = records.key_of_person(connection, gallery_key, gallery, person_id)
    row: tuple[Any, ...] = connection.execute(
        f"{records.SELECT_PERSONS} WHERE person_key = ?", (person_key,)
    ).fetchone()
    return row


def person_rows(connection: sqlite3.Connection, gallery: str, after: str | None, limit: int) -> list[tuple[Any, ...]]:
    """Rows of `records.SELECT_PERSONS` by id, behind `after`. Raises GalleryNotFound."""
    gallery_key = records.key_of_gallery(connection, gallery)
    return connection.execute(
        f"{records.SELECT_PERSONS} WHERE gallery_key = ? AND person_id > ? ORDER BY person_id LIMIT ?",
        (gallery_key, after or "", limit),
    ).fetchall()


def known_among(
    connection: sqlite3.Connection, gallery: str, person_ids: Sequence[str]
) -> dict[int, tuple[str, str | None]]:
    """Id and name, by key, of those of some persons who are enrolled."""
    if not GALLERY_NAME.fullmatch(gallery):
        return {}
    asked = json.dumps([person_id for person_id in person_ids if records.storable(person_id)])
    known = connection.execute(
        "SELECT person_key, person_id, p.name FROM persons JOIN profiles p USING (profile_key) "
        "JOIN galleries g USING (gallery_key) WHERE g.name = ? AND person_id IN (SELECT value FROM json_each(?))",
        (gallery, asked),
    )
    return {key: (person_id, name) for key, person_id, name in known}


def face_rows(connection: sqlite3.Connection, person_keys: Sequence[int]) -> list[tuple[Any, ...]]:
    """Faces of some persons with their embeddings, as `Store` decodes them, in the order of enrolment."""
    return connection.execute(
        "SELECT gallery_key, face_key, person_key, face_id, vector FROM faces LEFT JOIN embeddings USING (face_key) "
        "WHERE person_key IN (SELECT value FROM json_each(?)) AND (expires_at_us IS NULL OR expires_at_us > ?) "
        "ORDER BY face_key",
        (json.dumps(list(person_keys)), records.now_us()),
    ).fetchall()


def next_expiry_us(connection: sqlite3.Connection, after_us: int) -> int | None:
    """When the next face expires, later than a moment; None if none does."""
    (found,) = connection.execute(
        "SELECT min(expires_at_us) FROM faces WHERE expires_at_us > ?", (after_us,)
    ).fetchone()
    return None if found is None else int(found)


def any_expired(connection: sqlite3.Connection) -> bool:
    """Whether there are faces whose time has come and who are not erased yet."""
    row = connection.execute("SELECT 1 FROM faces WHERE expires_at_us <= ? LIMIT 1", (records.now_us(),)).fetchone()
    return row is not None


def expired_keys(connection: sqlite3.Connection, now_us: int) -> dict[str, list[int]]:
    """Keys of the faces whose time has come and who are not erased yet, ascending, by gallery."""
    keys: dict[str, list[int]] = {}
    for gallery, key in connection.execute(
        "SELECT name, face_key FROM faces JOIN galleries USING (gallery_key) WHERE expires_at_us <= ? "
        "ORDER BY face_key",
        (now_us,),
    ):
        keys.setdefault(gallery, []).append(key)
    return keys
