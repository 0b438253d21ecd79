"""Changes to galleries in Milvus, worked out on what a strong read has shown before anything is written."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from service.domain import (
    DomainError,
    GalleryNotFound,
    ImportOutcome,
    InvalidRequest,
    Person,
    PersonExists,
    PersonNotFound,
    Removal,
)
from service.gallery.milvus.rows import FaceRow, PersonRow, person_key_of, record_of
from service.gallery.milvus.tables import Tables

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_RECORD_BYTES = 65_000


@dataclass(slots=True)
class Draft:
    """What some changes concern, as it was read and as they have left it so far.

    Attributes:
        people: persons by key; None where there is nobody.
        faces: faces by person, in order; of persons whose faces a change must know.
        owners: person of each face key that a change wants to use, where it is taken.
        revisions: of every gallery.
        stored, erased: faces to write and to erase, by key; a key in both is replaced.
        touched: galleries with a new revision.
    """

    people: dict[str, PersonRow | None]
    faces: dict[str, list[FaceRow]]
    owners: dict[str, str]
    revisions: dict[str, int]
    stored: dict[str, FaceRow] = field(default_factory=dict)
    erased: dict[str, FaceRow | None] = field(default_factory=dict)
    changed: dict[str, PersonRow | None] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    position: int = field(default_factory=time.time_ns)

    def next_revision(self, gallery: str) -> int:
        """A revision above all there are, now the gallery's."""
        self.revisions[gallery] = max(self.revisions.values(), default=0) + 1
        self.touched.add(gallery)
        return self.revisions[gallery]

    def set_person(self, key: str, person: PersonRow | None) -> None:
        """Let a person be this, or gone."""
        self.people[key] = self.changed[key] = person

    def is_taken(self, face_key: str) -> bool:
        """Whether somebody who exists has this face."""
        owner = self.owners.get(face_key)
        return owner is not None and self.people.get(owner) is not None

    def add_faces(self, faces: Sequence[FaceRow]) -> None:
        """Add faces whose keys nobody has; what nobody's face stands in the way goes."""
        for face in faces:
            self.position += 1
            placed = replace(face, position=self.position)
            if face.face_key in self.owners and face.face_key not in self.stored:
                self.erased.setdefault(face.face_key, None)
            self.owners[face.face_key] = face.person_key
            self.stored[face.face_key] = placed
            self.faces.setdefault(face.person_key, []).append(placed)

    def remove_faces(self, person_key: str) -> list[FaceRow]:
        """Take away all faces of a person; those that were written before these changes are to be erased."""
        gone = self.faces.pop(person_key, [])
        for face in gone:
            self.owners.pop(face.face_key, None)
            if self.stored.pop(face.face_key, None) is None:
                self.erased[face.face_key] = face
        return gone


class Change(Protocol):
    """One caller's change."""

    @property
    def gallery(self) -> str:
        """Name of the gallery that it changes."""

    def person_keys(self) -> list[str]:
        """Persons whom it concerns."""

    def face_keys(self) -> list[str]:
        """Faces that it wants to add."""

    def apply(self, draft: Draft) -> Any:
        """Make it on the draft, or raise a DomainError and leave the draft as it is."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody to be stored, with the faces that are to be theirs (their `position` is not yet known)."""

    person: PersonRow
    faces: Sequence[FaceRow]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """See `Gallery.enrol`."""

    gallery: str
    candidate: Candidate
    extend: bool

    def person_keys(self) -> list[str]:
        """See `Change`."""
        return [self.candidate.person.person_key]

    def face_keys(self) -> list[str]:
        """See `Change`."""
        return [face.face_key for face in self.candidate.faces]

    def apply(self, draft: Draft) -> Person:
        """See `Change`."""
        new, faces = self.candidate.person, self.candidate.faces
        known = draft.people.get(new.person_key)
        if known is not None and not self.extend:
            raise PersonExists("a person of this id is enrolled already", gallery=self.gallery, person_id=new.person_id)
        if known is None and not faces:
            raise InvalidRequest("a new person needs at least one face", field="faces")
        keys = self.face_keys()
        if len(set(keys)) < len(keys) or any(draft.is_taken(key) for key in keys):
            raise InvalidRequest("a face of this id is in the gallery already", field="face_id")
        person = new
        if known is not None:
            person = replace(
                known,
                name=known.name if new.name is None else new.name,
                metadata=known.metadata if new.metadata == "{}" else new.metadata,
            )
        check_record(person)
        if known is None:
            draft.remove_faces(new.person_key)
        draft.set_person(new.person_key, person)
        draft.add_faces(faces)
        draft.next_revision(self.gallery)
        return person_of(person, draft.faces.get(new.person_key, []))


@dataclass(frozen=True, slots=True)
class Import:
    """See `Gallery.import_persons`; the records that passed the checks."""

    gallery: str
    candidates: Sequence[Candidate]

    def person_keys(self) -> list[str]:
        """See `Change`."""
        return [candidate.person.person_key for candidate in self.candidates]

    def face_keys(self) -> list[str]:
        """See `Change`."""
        return [face.face_key for candidate in self.candidates for face in candidate.faces]

    def apply(self, draft: Draft) -> list[ImportOutcome]:
        """See `Change`; raises nothing."""
        return [self._stored(draft, candidate) for candidate in self.candidates]

    def _stored(self, draft: Draft, candidate: Candidate) -> ImportOutcome:
        key, faces = candidate.person.person_key, candidate.faces
        known = draft.people.get(key) is not None
        new = [face for face in faces if not (known and draft.owners.get(face.face_key) == key)]
        keys = [face.face_key for face in faces]
        if len(set(keys)) < len(keys):
            return ImportOutcome(error=InvalidRequest("a face id is there twice", field="face_id"))
        if known and not new:
            return ImportOutcome(present=len(faces))
        unnamed = replace(candidate.person, name=None, metadata="{}") if known else candidate.person
        try:
            Enrolment(self.gallery, Candidate(unnamed, new), extend=True).apply(draft)
        except DomainError as error:
            return ImportOutcome(error=error)
        return ImportOutcome(added=len(new), present=len(faces) - len(new))


@dataclass(frozen=True, slots=True)
class Forgetting:
    """See `Gallery.forget_person`."""

    gallery: str
    person_id: str

    def person_keys(self) -> list[str]:
        """See `Change`."""
        return [person_key_of(self.gallery, self.person_id)]

    def face_keys(self) -> list[str]:
        """See `Change`."""
        return []

    def apply(self, draft: Draft) -> Removal:
        """See `Change`."""
        (key,) = self.person_keys()
        if self.gallery not in draft.revisions:
            raise GalleryNotFound("there is no gallery of this name", gallery=self.gallery)
        if draft.people.get(key) is None:
            raise PersonNotFound(
                "there is no person of this id in the gallery", gallery=self.gallery, person_id=self.person_id
            )
        draft.set_person(key, None)
        gone = draft.remove_faces(key)
        return Removal(
            persons=1,
            faces=len(gone),
            index_entries=len(gone),
            revision=draft.next_revision(self.gallery),
            crop_digests=tuple(face.crop_digest for face in gone if face.crop_digest),
        )


def person_of(row: PersonRow, faces: Sequence[FaceRow]) -> Person:
    """A person as the domain knows them."""
    return Person(
        gallery=row.gallery,
        person_id=row.person_id,
        name=row.name,
        metadata=json.loads(row.metadata),
        created_at=_EPOCH + timedelta(microseconds=row.created_us),
        face_ids=tuple(face.face_id for face in faces),
    )


def check_record(person: PersonRow) -> None:
    """Raises InvalidRequest when name and metadata are more than Milvus stores in a field."""
    if len(record_of(person)) > _MOST_RECORD_BYTES:
        raise InvalidRequest(f"name and metadata take more than {_MOST_RECORD_BYTES} bytes as JSON", field="metadata")


def read_draft(tables: Tables, changes: Sequence[Change], beside: Executor) -> Draft:
    """All that some changes need to know, by strong reads. Raises GalleryUnavailable.

    The two collections are asked at once, because a strong read waits for the server's clock rather than for work.

    Args:
        tables: to read.
        changes: of one round.
        beside: runs one of the two questions.
    """
    keys = {key for change in changes for key in change.person_keys()}
    # An import adds to persons whom it finds and tells nobody what they have, so theirs are not fetched.
    listed = {key for change in changes if not isinstance(change, Import) for key in change.person_keys()}
    wanted = {key for change in changes for key in change.face_keys()}
    asked = beside.submit(tables.people_and_revisions, keys)
    faces = tables.faces_concerning(listed, wanted)
    found, revisions = asked.result()
    people: dict[str, PersonRow | None] = {**dict.fromkeys(keys), **found}
    # Faces of imported persons who do not exist are left from a change that was cut off.
    left = {key for key in keys - listed if people[key] is None}
    faces += tables.faces_concerning(left, ()) if left else []
    others = {face.person_key for face in faces} - people.keys()
    if others:
        people |= {**dict.fromkeys(others), **tables.people(others, "Strong")}
    by_person: dict[str, list[FaceRow]] = {}
    for face in sorted({face.face_key: face for face in faces}.values(), key=lambda face: face.position):
        by_person.setdefault(face.person_key, []).append(face)
    return Draft(people, by_person, {face.face_key: face.person_key for face in faces}, revisions)
