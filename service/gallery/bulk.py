"""Many persons in one transaction, and many persons read back: what an import stores and an export writes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.domain import ImportOutcome, InvalidRequest
from service.gallery import records
from service.gallery.records import FaceRow
from service.gallery.schema import next_revision


class Candidate(NamedTuple):
    """A record of an import that passed the checks of its own values; `metadata` is a JSON object."""

    person_id: str
    name: str | None
    metadata: str
    created_at_us: int | None
    faces: Sequence[FaceRow]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import stored.

    Attributes:
        outcomes: one a candidate.
        face_keys, person_keys: (m,) int64 of the new faces, ascending.
        positions: (m,) int64, which of the candidates' faces, counted through, each one is.
        face_ids: m ids.
        revision: of the store afterwards; 0 where nothing was stored.
    """

    outcomes: list[ImportOutcome]
    face_keys: NDArray[np.int64]
    person_keys: NDArray[np.int64]
    positions: NDArray[np.int64]
    face_ids: list[str]
    revision: int


def import_all(connection: sqlite3.Connection, gallery: str, candidates: Sequence[Candidate]) -> Imported:
    """Store what the gallery does not have yet; see `Gallery.import_persons`."""
    found = connection.execute("SELECT gallery_key FROM galleries WHERE name = ?", (gallery,)).fetchone()
    plan = _Plan.begun(connection, None if found is None else found[0], candidates)
    outcomes, position = [], 0
    for candidate in candidates:
        try:
            outcomes.append(plan.take(candidate, position))
        except InvalidRequest as refusal:
            outcomes.append(ImportOutcome(error=refusal))
        position += len(candidate.faces)
    revision = plan.carry_out(connection, gallery) if plan.persons or plan.faces else 0
    return Imported(
        outcomes,
        np.array([face.key for face in plan.faces], dtype=np.int64),
        np.array([face.person_key for face in plan.faces], dtype=np.int64),
        np.array([face.position for face in plan.faces], dtype=np.int64),
        [face.row.face_id for face in plan.faces],
        revision,
    )


class _PlannedFace(NamedTuple):
    key: int
    person_key: int
    position: int
    row: FaceRow


@dataclass(slots=True)
class _Plan:
    """What is to be inserted, and who is known by then: asked for once, then followed in memory."""

    next_person: int
    next_face: int
    next_profile: int
    person_keys: dict[str, int]
    owners: dict[str, int]
    persons: list[tuple[int, Candidate]] = field(default_factory=list)
    faces: list[_PlannedFace] = field(default_factory=list)

    @classmethod
    def begun(cls, connection: sqlite3.Connection, gallery_key: int | None, candidates: Sequence[Candidate]) -> _Plan:
        # AUTOINCREMENT: a key is never used again, which a new face could be taken for the old one by.
        last = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
        ids = (candidate.person_id for candidate in candidates)
        face_ids = (face.face_id for candidate in candidates for face in candidate.faces)
        persons = (
            "SELECT person_id, person_key FROM persons "
            "WHERE gallery_key = ? AND person_id IN (SELECT value FROM json_each(?))"
        )
        faces = (
            "SELECT face_id, person_key FROM faces "
            "WHERE gallery_key = ? AND face_id IN (SELECT value FROM json_each(?))"
        )
        return cls(
            next_person=last.get("persons", 0) + 1,
            next_face=last.get("embeddings", 0) + 1,
            next_profile=last.get("profiles", 0) + 1,
            person_keys=_known(connection, persons, gallery_key, ids),
            owners=_known(connection, faces, gallery_key, face_ids),
        )

    def take(self, candidate: Candidate, position: int) -> ImportOutcome:
        """Plan one record. Raises InvalidRequest, and then plans nothing."""
        face_ids = [face.face_id for face in candidate.faces]
        if len(set(face_ids)) < len(face_ids):
            raise InvalidRequest("a face id occurs twice in one record", field="face_id")
        person_key = self.person_keys.get(candidate.person_id)
        for face_id in face_ids:
            if self.owners.get(face_id, person_key) != person_key:
                raise InvalidRequest("a face of this id is somebody else's", field="face_id", face_id=face_id)
        if person_key is None:
            person_key, self.next_person = self.next_person, self.next_person + 1
            self.person_keys[candidate.person_id] = person_key
            self.persons.append((person_key, candidate))
        added = 0
        for offset, row in enumerate(candidate.faces):
            if row.face_id not in self.owners:
                self.faces.append(_PlannedFace(self.next_face, person_key, position + offset, row))
                self.owners[row.face_id] = person_key
                self.next_face += 1
                added += 1
        return ImportOutcome(added=added, present=len(face_ids) - added)

    def carry_out(self, connection: sqlite3.Connection, gallery: str) -> int:
        """Insert what was planned; the revision that this made."""
        connection.execute("INSERT INTO galleries (name) VALUES (?) ON CONFLICT DO NOTHING", (gallery,))
        gallery_key = records.key_of_gallery(connection, gallery)
        now_us, revision = records.now_us(), next_revision(connection)
        first_new = min((key for key, _ in self.persons), default=self.next_person)
        profiles = range(self.next_profile, self.next_profile + len(self.persons))
        connection.executemany(
            "INSERT INTO profiles (profile_key, name, metadata) VALUES (?, ?, ?)",
            [(key, new.name, new.metadata) for key, (_, new) in zip(profiles, self.persons, strict=True)],
        )
        connection.executemany(
            "INSERT INTO persons (person_key, gallery_key, person_id, created_at_us, profile_key, revision) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [
                (key, gallery_key, new.person_id, new.created_at_us or now_us, profile_key, revision)
                for profile_key, (key, new) in zip(profiles, self.persons, strict=True)
            ],
        )
        grown = {face.person_key for face in self.faces if face.person_key < first_new}
        connection.executemany(
            "UPDATE persons SET revision = ? WHERE person_key = ?", [(revision, key) for key in grown]
        )
        connection.executemany(
            "INSERT INTO embeddings (face_key, vector) VALUES (?, ?)",
            [(face.key, face.row.embedding) for face in self.faces],
        )
        connection.executemany(
            "INSERT INTO crops (face_key, image) VALUES (?, ?)",
            [(face.key, face.row.crop) for face in self.faces if face.row.crop is not None],
        )
        connection.executemany(
            "INSERT INTO faces (face_key, person_key, gallery_key, face_id, quality, crop_digest, created_at_us, "
            "revision, expires_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    face.key,
                    face.person_key,
                    gallery_key,
                    face.row.face_id,
                    face.row.quality,
                    face.row.crop_digest,
                    now_us,
                    revision,
                    face.row.expires_us,
                )
                for face in self.faces
            ],
        )
        connection.execute(
            "UPDATE galleries SET persons = persons + ?, faces = faces + ?, revision = ? WHERE gallery_key = ?",
            (len(self.persons), len(self.faces), revision, gallery_key),
        )
        return revision


def _known(connection: sqlite3.Connection, query: str, gallery_key: int | None, ids: Iterable[str]) -> dict[str, int]:
    if gallery_key is None:
        return {}
    asked = json.dumps(list(ids), ensure_ascii=False)
    return dict(connection.execute(query, (gallery_key, asked)))


@dataclass(frozen=True, slots=True)
class StoredFace:
    """A face as an export reads it; the embedding is what was stored, unchecked."""

    gallery_key: int
    face_key: int
    person_key: int
    face_id: str
    embedding: bytes
    quality: str
    crop_digest: str
    expires_us: int | None
    crop: bytes | None


def faces_of_persons(connection: sqlite3.Connection, person_keys: Sequence[int]) -> list[StoredFace]:
    """All faces of some persons, as enrolled."""
    rows = connection.execute(
        "SELECT gallery_key, face_key, person_key, face_id, vector, quality, crop_digest, expires_at_us, image "
        "FROM faces LEFT JOIN embeddings USING (face_key) LEFT JOIN crops USING (face_key) "
        "WHERE person_key IN (SELECT value FROM json_each(?)) AND (expires_at_us IS NULL OR expires_at_us > ?) "
        "ORDER BY face_key",
        (json.dumps(list(person_keys)), records.now_us()),
    )
    return [StoredFace(*row) for row in rows]
